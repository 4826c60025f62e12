#!/usr/bin/env bash
# Download what TVR needs: databases, features, weights, and a fine-tuned model.
#
#   bash scripts/download_tvr.sh STORAGE [OPTION…]
#
# Options are those of scripts/prepare_data.py. HERO_BLOB_URL names a mirror (docs/DATA.md), PYTHON
# the interpreter; HERO_DOCKER=1 downloads in the container.
set -euo pipefail
REPO=$(realpath "$(dirname "${BASH_SOURCE[0]}")/..")
source "$REPO/scripts/preparation.sh"
download tvr "$@"
