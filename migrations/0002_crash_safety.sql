-- The audit trail, and the marker that says whether SQLite's -wal may hold commits that this file lacks.
-- Meanings: docs/reference/file-format.md.

CREATE TABLE audit (
  number INTEGER PRIMARY KEY,
  at     TEXT NOT NULL,
  kind   TEXT NOT NULL,
  seq    INTEGER NOT NULL,
  chain  BLOB NOT NULL,
  detail TEXT NOT NULL,
  digest BLOB NOT NULL
);

CREATE TRIGGER audit_no_update BEFORE UPDATE ON audit
BEGIN
  SELECT RAISE(ABORT, 'an audit entry is never changed');
END;

CREATE TRIGGER audit_no_delete BEFORE DELETE ON audit
BEGIN
  SELECT RAISE(ABORT, 'an audit entry is never deleted');
END;

-- INSERT OR REPLACE would delete without asking the trigger above.
CREATE TRIGGER audit_no_replace BEFORE INSERT ON audit
WHEN EXISTS (SELECT 1 FROM audit WHERE number >= NEW.number)
BEGIN
  SELECT RAISE(ABORT, 'audit entries are appended');
END;

CREATE VIEW events AS
SELECT number, at, kind, seq, lower(hex(chain)) AS chain, detail, lower(hex(digest)) AS digest
FROM audit;

INSERT INTO meta (name, value) VALUES ('marker', x'');

UPDATE meta SET value = 2 WHERE name = 'format';
