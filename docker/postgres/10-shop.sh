#!/bin/sh
# Run once, by the image, over an empty data directory: the sample shop, and the role that pods connect as, which may read it.
set -eu
psql --set ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname "$POSTGRES_DB" --file /sample/shop.sql
psql --set ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname "$POSTGRES_DB" \
    --set password="$(cat /run/secrets/app_password)" <<'SQL'
CREATE ROLE app LOGIN PASSWORD :'password';
GRANT USAGE ON SCHEMA shop TO app;
GRANT SELECT ON ALL TABLES IN SCHEMA shop TO app;
SQL
