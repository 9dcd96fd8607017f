#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# python.sh ARGS... - runs a Python that has torch and diffusers: $PYTHON if set, otherwise one that
# is set up on first use from PyPI in the user's cache (5 GB; minutes).
set -eu
if [ -z "${PYTHON:-}" ]; then
    cache=${XDG_CACHE_HOME:-$HOME/.cache}/wan-reference
    PYTHON=$cache/bin/python3
    if [ ! -e "$cache/ready" ]; then
        echo "setting up torch and diffusers in $cache" >&2
        python3 -m venv "$cache"
        "$PYTHON" -m pip install -q torch diffusers transformers tokenizers sentencepiece safetensors ftfy pillow gguf \
            numpy accelerate protobuf >&2
        touch "$cache/ready"
    fi
fi
exec "$PYTHON" "$@"
