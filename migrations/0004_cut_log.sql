-- A log that can be cut and kept small. Meanings: docs/reference/file-format.md.

ALTER TABLE wal ADD COLUMN records BLOB;
ALTER TABLE wal ADD COLUMN total INTEGER;
ALTER TABLE wal ADD COLUMN digests INTEGER;

-- What remains of the commits that were cut: their chains, 32 bytes each, up to 256 in a row.
CREATE TABLE cut_commits (
  block  INTEGER PRIMARY KEY,
  chains BLOB NOT NULL,
  digest BLOB NOT NULL
);

-- Who follows the commits, and the last one that it has: later ones are not cut.
CREATE TABLE claims (
  number INTEGER PRIMARY KEY,
  name   TEXT NOT NULL,
  seq    INTEGER NOT NULL
);

-- Collections of whose values the log keeps the digests only.
CREATE TABLE digest_logs (
  collection TEXT PRIMARY KEY
) WITHOUT ROWID;

DROP VIEW log;

CREATE VIEW log AS
SELECT lsn, txn, kind, collection,
       CASE typeof(key) WHEN 'blob' THEN hex(key) ELSE key END AS key,
       CASE typeof(value) WHEN 'blob' THEN hex(value) ELSE value END AS value,
       CASE typeof(before) WHEN 'blob' THEN hex(before) ELSE before END AS before,
       digests, seq, at, note
FROM wal;

UPDATE meta SET value = 4 WHERE name = 'format';
