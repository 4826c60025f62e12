"""What tests share: worlds, films, servers, and how runs are started, killed and compared."""

from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
RECORDED = REPOSITORY / "tests" / "recorded"  # files recorded from the published code
THEIRS = RECORDED / "theirs"  # files that it wrote
