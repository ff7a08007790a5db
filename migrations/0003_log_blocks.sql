-- Digests over blocks of 256 commits, so that a proof about the commits need not read all of them.
-- Meanings: docs/reference/file-format.md.

CREATE TABLE log_blocks (
  block  INTEGER PRIMARY KEY,
  digest BLOB NOT NULL
);

UPDATE meta SET value = 3 WHERE name = 'format';
