#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The manual page of the emo program, from what the program says of itself. usage: scripts/manpage.sh EMO_PROGRAM >emo.1
set -eu
emo=$1
escape() { sed -e 's/\\/\\e/g' -e 's/-/\\-/g' -e "s/^\\([.']\\)/\\\\\&\\1/"; }
help() { "$emo" "$@" --help; }
version=$("$emo" --version | grep -oE '[0-9]+\.[0-9]+\.[0-9]+' | head -n 1)
cat <<EOT
.TH EMO 1 "" "libemo $version" "User Commands"
.SH NAME
emo \\- train and run mixture\\-of\\-experts language models whose experts can be loaded a few at a time
.SH SYNOPSIS
.B emo
.I COMMAND
.RI [ options ]
.SH DESCRIPTION
.nf
EOT
help | tail -n +2 | escape
echo .fi
for command in $(help | awk '/^Commands:/ { on = 1; next } /^$/ { on = 0 } on { print $1 }'); do
    printf '.SH EMO %s\n.nf\n' "$(tr '[:lower:]' '[:upper:]' <<<"$command")"
    help "$command" | escape
    echo .fi
done
