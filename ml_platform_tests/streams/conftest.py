"""The broker of the tests of streams."""

from ml_platform_tests.kafka_broker import kafka_broker  # noqa: F401 - a fixture
