#!/usr/bin/env bash
# Download what TVQA needs: databases, features, weights.
#
#   bash scripts/download_tvqa.sh STORAGE [OPTION…]
#
# Options are those of scripts/prepare_data.py. HERO_BLOB_URL names a mirror (docs/DATA.md), PYTHON
# the interpreter; HERO_DOCKER=1 downloads in the container.
set -euo pipefail
REPO=$(realpath "$(dirname "${BASH_SOURCE[0]}")/..")
source "$REPO/scripts/preparation.sh"
download tvqa "$@"
