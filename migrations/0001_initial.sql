-- The store itself: entries, write-ahead log, Merkle tree, and the facts about the file.
-- Columns that hold a key or a value have no declared type, so that SQLite keeps the storage
-- class it was given: 1, '1' and x'31' are three keys. Meanings: docs/reference/file-format.md.

CREATE TABLE meta (
  name  TEXT PRIMARY KEY,
  value NOT NULL
) WITHOUT ROWID;

CREATE TABLE state (
  collection TEXT NOT NULL,
  key        NOT NULL,
  value      NOT NULL,
  PRIMARY KEY (collection, key)
) WITHOUT ROWID;

CREATE TABLE merkle (
  id         INTEGER PRIMARY KEY,
  level      INTEGER NOT NULL,
  collection TEXT NOT NULL,
  key        NOT NULL,
  children   BLOB NOT NULL
);

CREATE UNIQUE INDEX merkle_name ON merkle (level, collection, key);

CREATE TABLE wal (
  lsn        INTEGER PRIMARY KEY,
  txn        INTEGER NOT NULL,
  kind       TEXT NOT NULL,
  session    BLOB,
  collection TEXT,
  key,
  value,
  before,
  seq        INTEGER,
  root       BLOB,
  count      INTEGER,
  at         TEXT,
  chain      BLOB,
  note       TEXT
);

-- One commit in 64 is enough to find any: an index on every seq would dirty one page more per commit.
CREATE INDEX wal_milestones ON wal (seq) WHERE seq % 64 = 0 AND root IS NOT NULL;

CREATE INDEX wal_staged ON wal (txn, collection, key) WHERE session IS NOT NULL;

CREATE TABLE staged (
  txn     INTEGER PRIMARY KEY,
  session BLOB NOT NULL
);

CREATE VIEW entries AS
SELECT collection,
       typeof(key) AS key_type,
       CASE typeof(key) WHEN 'blob' THEN hex(key) ELSE key END AS key,
       CASE typeof(value) WHEN 'blob' THEN 'bytes' ELSE 'json' END AS value_type,
       CASE typeof(value) WHEN 'blob' THEN hex(value) ELSE value END AS value
FROM state;

CREATE VIEW commits AS
SELECT seq, lsn, at, count, lower(hex(root)) AS root, lower(hex(chain)) AS chain
FROM wal
WHERE root IS NOT NULL;

CREATE VIEW log AS
SELECT lsn, txn, kind, collection,
       CASE typeof(key) WHEN 'blob' THEN hex(key) ELSE key END AS key,
       CASE typeof(value) WHEN 'blob' THEN hex(value) ELSE value END AS value,
       CASE typeof(before) WHEN 'blob' THEN hex(before) ELSE before END AS before,
       seq, at, note
FROM wal;
