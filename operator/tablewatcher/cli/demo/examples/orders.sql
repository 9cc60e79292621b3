-- The table that the examples watch, and that `tablewatcher demo` changes.
CREATE TABLE public.orders (
  id       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  customer text NOT NULL,
  status   text NOT NULL DEFAULT 'new',
  total    numeric(10, 2) NOT NULL,
  note     text
);
