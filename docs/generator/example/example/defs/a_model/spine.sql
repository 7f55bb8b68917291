SELECT id, happened_at, happened_at + to_days(1) AS known_at, amount > 10 AS large FROM raw.a_table
