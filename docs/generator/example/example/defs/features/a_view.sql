/*
description: Values of an entity over time, each from the instant on at which it was known.
owner: team@example.com
entity: [id]
columns:
  last_amount: {type: number, description: Newest amount.}
*/
SELECT id, happened_at AS event_time, amount AS last_amount FROM raw.a_table
