#!/bin/sh
# Seawall's requests, one after the other. Each prints a label, the status and the body.
#
#   SEAWALL_URL     where the query listener is, such as http://127.0.0.1:8080
#   SEAWALL_TOKEN   an API token or a JWT, where the service asks for one
#   DATABASE_URL    the database, for the write that is read back
set -eu

url=${SEAWALL_URL:-http://127.0.0.1:8080}
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT

# --compressed: takes any coding that this curl knows. --retry heeds Retry-After on 429 and 503.
# The token goes through a file: arguments are seen by everybody on the machine.
: >"$dir/head"
[ -z "${SEAWALL_TOKEN:-}" ] || printf 'Authorization: Bearer %s\n' "$SEAWALL_TOKEN" >"$dir/head"
ask() {
    path=$1
    shift
    # Into a file: a retry would leave what came before it on standard output.
    : >"$dir/body"
    curl --silent --show-error --compressed --max-time 10 --retry 5 --retry-max-time 10 --header "@$dir/head" \
        --output "$dir/body" --write-out '%{http_code} ' "$@" "$url/v1/queries/$path"
    cat "$dir/body"
}

echo "product: $(ask 'product?id=1')"

# The same by POST: for parameters that are too long for a URI, and for arrays.
echo "posted: $(ask product --json '{"id": 1}')"

# With its tag: 304 and no body, as long as the answer is the same.
ask 'product?id=1' --etag-save "$dir/etag" >/dev/null
echo "again: $(ask 'product?id=1' --etag-compare "$dir/etag")"

# Problems have a code to act on, and say what is wrong for people.
echo "absent: $(ask 'product?id=999999')"
echo "bad: $(ask 'product?id=one')"

# Read your own write: the token is taken in the transaction, and sent with the reads that must see it.
written=$(psql "$DATABASE_URL" --quiet --no-psqlrc --tuples-only --no-align --single-transaction \
    --command "UPDATE shop.products SET stock = stock + 1 WHERE id = 1" --command "SELECT seawall.token()")
echo "written: $(ask 'product?id=1' --header "Seawall-After: $written")"
