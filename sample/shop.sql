-- A small shop, the same on every machine. Loading it twice does no harm.
CREATE SCHEMA IF NOT EXISTS shop;

CREATE TABLE IF NOT EXISTS shop.categories (
    id   int  PRIMARY KEY,
    slug text NOT NULL UNIQUE,
    name text NOT NULL
);

CREATE TABLE IF NOT EXISTS shop.products (
    id          int            PRIMARY KEY,
    category_id int            NOT NULL REFERENCES shop.categories,
    name        text           NOT NULL,
    price       numeric(10, 2) NOT NULL,
    stock       int            NOT NULL,
    updated_at  timestamptz    NOT NULL
);

CREATE TABLE IF NOT EXISTS shop.reviews (
    id         bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    product_id int         NOT NULL REFERENCES shop.products,
    author     text        NOT NULL,
    rating     int2        NOT NULL CHECK (rating BETWEEN 1 AND 5),
    body       text        NOT NULL,
    created_at timestamptz NOT NULL
);

INSERT INTO shop.categories
SELECT n, 'category-' || n, 'Category ' || n
FROM generate_series(1, 20) AS n
ON CONFLICT DO NOTHING;

INSERT INTO shop.products
SELECT n, n % 20 + 1, 'Product ' || n, (n % 997 + 1)::numeric / 4, n * 7 % 50,
       timestamptz '2026-01-01 00:00:00+00' + n * interval '1 minute'
FROM generate_series(1, 2000) AS n
ON CONFLICT DO NOTHING;

INSERT INTO shop.reviews (product_id, author, rating, body, created_at)
SELECT n % 2000 + 1, 'Customer ' || n % 321, n % 5 + 1, 'Review ' || n || ': ' || repeat('good value, ', n % 4 + 1),
       timestamptz '2026-02-01 00:00:00+00' + n * interval '13 seconds'
FROM generate_series(1, 20000) AS n
WHERE NOT EXISTS (SELECT FROM shop.reviews);

CREATE INDEX IF NOT EXISTS products_category ON shop.products (category_id);
CREATE INDEX IF NOT EXISTS reviews_product ON shop.reviews (product_id);

ANALYZE shop.categories, shop.products, shop.reviews;
