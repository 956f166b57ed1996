#!/bin/sh
# Makes the secrets that compose.yaml names, where they are missing. None of them is in the repository.
set -eu
cd "$(dirname "$0")"
# Nobody else gets into the directory. The files themselves are readable: containers see them as they are, bound one by one, and
# none of them runs as whoever made them.
chmod 0700 .
umask 022
# Letters and digits alone: they stand in URLs.
for name in postgres_password app_password redis_password admin_token; do
    [ -s "$name" ] || od -An -N24 -tx1 /dev/urandom | tr -d ' \n' > "$name"
done
[ -s admin_token_sha256 ] || printf %s "$(cat admin_token)" | sha256sum | cut -d' ' -f1 > admin_token_sha256
