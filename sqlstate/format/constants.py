"""Every constant of the file format, as docs/reference/file-format.md defines them."""

from __future__ import annotations

from typing import Final

APPLICATION_ID: Final = 0x53715374  # "SqSt"
FORMAT_VERSION: Final = 4

DIGEST_BYTES: Final = 32
COUNT_BYTES: Final = 8
CHILD_BYTES: Final = COUNT_BYTES + DIGEST_BYTES
STORE_ID_BYTES: Final = 16
SESSION_BYTES: Final = 16
STAGED_ZERO: Final = bytes(DIGEST_BYTES)  # before the first record of a staged transaction
NONCE_BYTES: Final = 16
MARKER_BYTES: Final = 1 + NONCE_BYTES + 8 + 8
MARKER_BYTES_WITHOUT_INODE: Final = 1 + NONCE_BYTES + 8  # as version 0.1.0 wrote it

# First byte of each hash's preimage, so that no two kinds of hash can be taken for each other.
TAG_LEAF: Final = b"\x00"
TAG_NODE: Final = b"\x01"
TAG_RANK: Final = b"\x02"
TAG_CHAIN: Final = b"\x03"
TAG_AUDIT: Final = b"\x04"
TAG_STAGED: Final = b"\x05"
TAG_CUT: Final = b"\x06"
TAG_START: Final = b"\x07"
TAG_REDACTED: Final = b"\x08"

KIND_INT: Final = b"i"
KIND_STR: Final = b"t"
KIND_BYTES: Final = b"b"
VKIND_JSON: Final = b"j"
VKIND_BYTES: Final = b"b"

RANK_MAX: Final = 15
LEVEL_MAX: Final = RANK_MAX + 1  # no entry starts a run there, so that level has a single node

# A node row's id is (LEVEL_MAX - level) << NODE_ID_SHIFT, plus a number: upper levels share pages.
NODE_ID_SHIFT: Final = 48

# Every so many commits, one is in the index wal_milestones.
MILESTONE: Final = 64

# The number of commits in one block of the log over the commits.
LOG_BLOCK: Final = 256

# What a record's values are in the log, instead of themselves: bits of the column digests.
VALUE_DIGEST: Final = 1
BEFORE_DIGEST: Final = 2

INT_MIN: Final = -(2**63)
INT_MAX: Final = 2**63 - 1
# LSNs, numbers of commits and counts end far below what SQLite can hold, so that adding to one never overflows.
NUMBER_MAX: Final = 2**62
NAME_BYTES_MAX: Final = 255
KEY_BYTES_MAX: Final = 1 << 20
# A PUT record holds a value twice, the one before and the new one, and SQLite's rows end at 10^9 bytes.
VALUE_BYTES_MAX: Final = 256 << 20
NOTE_BYTES_MAX: Final = 4096

# What the JSON codec carries exactly. Deeper documents would exhaust a reader's stack.
JSON_INT_MIN: Final = -(2**63)
JSON_INT_MAX: Final = 2**64 - 1
JSON_DEPTH_MAX: Final = 200

RECORD_BEGIN: Final = b"B"
RECORD_PUT: Final = b"P"
RECORD_DELETE: Final = b"D"
RECORD_COMMIT: Final = b"C"
