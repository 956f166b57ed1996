-- The sample shop: 20 categories, 2,000 products, 20,000 reviews, the same on every machine.
-- May be run again: tables that are there stay, tables that are filled are left alone.
-- In one transaction: nobody sees half a shop.
BEGIN;
SET LOCAL client_min_messages = warning;

CREATE SCHEMA IF NOT EXISTS shop;

CREATE TABLE IF NOT EXISTS shop.categories (
    id   int PRIMARY KEY,
    slug text UNIQUE NOT NULL,
    name text NOT NULL
);

CREATE TABLE IF NOT EXISTS shop.products (
    id          int PRIMARY KEY,
    category_id int NOT NULL REFERENCES shop.categories,
    name        text NOT NULL,
    price       numeric(10, 2) NOT NULL,
    stock       int NOT NULL,
    updated_at  timestamptz NOT NULL
);

CREATE TABLE IF NOT EXISTS shop.reviews (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    product_id int NOT NULL REFERENCES shop.products,
    author     text NOT NULL,
    rating     int2 NOT NULL CHECK (rating BETWEEN 1 AND 5),
    body       text NOT NULL,
    created_at timestamptz NOT NULL
);

INSERT INTO shop.categories (id, slug, name)
SELECT id, lower(replace(name, ' ', '-')), name
FROM unnest(ARRAY[
    'Anchors', 'Books', 'Boots', 'Buoys', 'Charts', 'Clocks', 'Compasses', 'Cordage', 'Flags', 'Galley',
    'Jackets', 'Knives', 'Lamps', 'Life Vests', 'Nets', 'Paint', 'Pumps', 'Radios', 'Sails', 'Tools'
]) WITH ORDINALITY AS listed (name, id)
WHERE NOT EXISTS (SELECT FROM shop.categories);

INSERT INTO shop.products (id, category_id, name, price, stock, updated_at)
SELECT
    n,
    1 + n % 20,
    (ARRAY['Classic', 'Heavy', 'Light', 'Northern', 'Pocket', 'Storm', 'Tidal'])[1 + n % 7] || ' '
        || c.name || ' ' || (ARRAY['I', 'II', 'III', 'IV', 'V', 'VI', 'VII', 'VIII', 'IX'])[1 + n % 9] || ' no. ' || n,
    ((n * 7919) % 49000 + 199) / 100.0,
    (n * 31) % 500,
    timestamptz '2026-01-01 00:00:00+00' + n * interval '7 minutes'
FROM generate_series(1, 2000) AS n
JOIN shop.categories AS c ON c.id = 1 + n % 20
WHERE NOT EXISTS (SELECT FROM shop.products)
ORDER BY n;

INSERT INTO shop.reviews (product_id, author, rating, body, created_at)
SELECT
    1 + (n * 37) % 2000,
    (ARRAY['Ada', 'Ben', 'Cleo', 'Dov', 'Edda', 'Femi', 'Gus', 'Hana', 'Ivo', 'June', 'Kofi'])[1 + n % 11],
    1 + (n * 13 + n / 17) % 5,
    (ARRAY['Holds in any weather.', 'Smaller than it looked.', 'Would buy again.', 'Rusted within a year.',
        'A gift; they were pleased.', 'Does what it should.', 'Came late, works well.'])[1 + n % 7]
        || ' Review no. ' || n || '.',
    timestamptz '2026-01-02 00:00:00+00' + n * interval '11 minutes'
FROM generate_series(1, 20000) AS n
WHERE NOT EXISTS (SELECT FROM shop.reviews)
ORDER BY n;

CREATE INDEX IF NOT EXISTS products_category ON shop.products (category_id);
CREATE INDEX IF NOT EXISTS reviews_product ON shop.reviews (product_id);

COMMIT;

-- Plans that don't depend on whether autovacuum has come by.
ANALYZE shop.categories, shop.products, shop.reviews;
