#!/usr/bin/env bash
# Download what VALUE's eleven tasks need: databases, features, weights.
#
#   bash scripts/download_value.sh STORAGE [OPTION…]
#
# Options are those of scripts/prepare_data.py. HERO_BLOB_URL names a mirror (docs/DATA.md), PYTHON
# the interpreter; HERO_DOCKER=1 downloads in the container. STORAGE is another than HERO's: some of
# its databases have the same names.
set -euo pipefail
REPO=$(realpath "$(dirname "${BASH_SOURCE[0]}")/..")
source "$REPO/scripts/preparation.sh"
download value "$@"
