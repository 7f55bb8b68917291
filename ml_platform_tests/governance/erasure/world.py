"""Worlds with everything in which somebody is: tables with versions, online store, logs, files, a release."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dataframely as dy
import polars as pl

from ml_platform.features.online.open import open_online_store
from ml_platform.features.online.publish import publish_view
from ml_platform.features.views.load import load_views
from ml_platform.governance.erasure.entities import Project
from ml_platform.governance.erasure.forget import Erasure
from ml_platform.lake.ingestion.raw_table import RawTable
from ml_platform.lake.storage.tables import Lake
from ml_platform.settings import Settings
from ml_platform_tests.toy_world import START, Shops, push_loads

SHOP = "shop-3"
ORDERS, QUARANTINE = "raw/orders", "quarantine/raw/orders"
VISITS, VIEW = "raw/visits", "features/customer_visits"

_VIEW = """/*
description: How often a customer came.
owner: shops@example.com
entity: [customer]
columns:
  visits: {type: integer, description: Visits so far.}
*/
SELECT cust_id AS customer, now() AS event_time, visits FROM raw.visits
"""


class Orders(dy.Schema):
    order_id = dy.String(primary_key=True)
    shop = dy.String()


class Loads(dy.Schema):
    shop = dy.String(primary_key=True)
    load = dy.Float64(nullable=True)


class Visits(dy.Schema):
    cust_id = dy.String(metadata={"entity": "customer"})
    visits = dy.Int64()


def raw_table(name: str, contract: type[dy.Schema]) -> RawTable:
    def read(*_: Any) -> pl.DataFrame:
        raise AssertionError("an erasure reads no source")

    return RawTable(name=name, description="", source=f"{name}.csv", contract=contract, read=read)


def shops_erasure(shops: Shops, *shop: str, **options: Any) -> Erasure:
    tables = {name: raw_table(name, contract) for name, contract in ((ORDERS, Orders), ("raw/loads", Loads))}
    project = Project(tables, {}, shops.views, {shops.spec.name: shops.spec}, {}, {shops.spec.name: shops.folder})
    return Erasure(shops.settings, "shop", shop or (SHOP,), project=project, **options)


def fill_shops(shops: Shops) -> None:
    """Put a shop into what the trained world does not have yet."""
    push_loads(shops, START + timedelta(days=80), 1.5)
    with open_online_store(shops.settings.online_uri) as store:
        publish_view(shops.lake, shops.views["shop_load"], store)
    shops.lake.append(
        QUARANTINE,
        pl.DataFrame({"row": [f'{{"order_id": "x", "shop": "{name}"}}' for name in (SHOP, "shop-4")]}),
    )
    shops.lake.append("raw/comments", pl.DataFrame({"who": [SHOP, "shop-4"], "text": ["slow", "fine"]}))
    run = shops.settings.home / "notebooks" / "explore" / "1"
    run.mkdir(parents=True)
    (run / "page.html").write_text(f"<td>{SHOP}</td>")
    (run / "other.html").write_text("<td>shop-4</td>")
    pl.DataFrame({"shop": [SHOP, "shop-4"], "load": [1.0, 2.0]}).write_parquet(run / "cache.parquet")


def customers(home: Path, **options: Any) -> Settings:
    """A small home without models: four customers in a table of three versions, a view, a quarantine, files, online."""
    settings = Settings(home=home, **options)
    lake, at = Lake(settings.lake_uri), datetime(2024, 5, 1, tzinfo=UTC)
    everybody = [f"customer-{number}" for number in range(4)]
    lake.append(VISITS, pl.DataFrame({"cust_id": everybody, "visits": [1, 2, 3, 4]}))
    lake.append(VISITS, pl.DataFrame({"cust_id": ["customer-0"], "visits": [5]}))
    lake.replace(VISITS, pl.DataFrame({"cust_id": ["customer-1"], "visits": [9]}), where="cust_id = 'customer-1'")
    rows = pl.DataFrame({"customer": everybody, "event_time": [at] * 4, "visits": [1, 2, 3, 4]})
    lake.append(VIEW, rows)
    lake.append("quarantine/raw/visits", pl.DataFrame({"row": [f'{{"cust_id":"{one}"}}' for one in everybody]}))
    with open_online_store(settings.online_uri) as store:
        store.write("customer_visits", ("customer",), rows)
    (home / "reports").mkdir()
    (home / "reports" / "page.html").write_text("<td>customer-1</td>")
    (home / "views").mkdir()
    (home / "views" / "customer_visits.sql").write_text(_VIEW)
    return settings


def customers_erasure(settings: Settings, *customer: str, **options: Any) -> Erasure:
    views = load_views(settings.home / "views")
    project = Project({VISITS: raw_table(VISITS, Visits)}, {}, views, {}, {}, {})
    return Erasure(settings, "customer", customer or ("customer-1",), project=project, **options)


def bytes_with(home: Path, text: str) -> list[str]:
    """Files below a home that have a text in their bytes, or as a value of Parquet."""
    found = []
    for path in sorted(home.rglob("*")):
        if path.is_file():
            content = path.read_bytes()
            if text.encode() in content or (path.suffix == ".parquet" and text in str(pl.read_parquet(path).to_dict())):
                found.append(str(path.relative_to(home)))
    return found
