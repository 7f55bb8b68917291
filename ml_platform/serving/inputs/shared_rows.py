"""The rows of one request, decoded once for all models that want the same of it."""

from ml_platform.serving.inputs.request_decoder import RowDecoder, Rows


class SharedRows:
    """Decodes a body once for each decoder; whoever gets the rows may change their values.

    Examples
    --------
    >>> from ml_platform.registry.manifest import Input
    >>> decoder, body, shared = RowDecoder([Input(name="n", type="integer")]), b'{"n": 1}', SharedRows()
    >>> shared.decode(decoder, body).values[0].update(n=2)
    >>> shared.decode(decoder, body).values
    [{'n': 1}]
    """

    def __init__(self) -> None:
        self._decoded: list[tuple[RowDecoder, bytes, Rows]] = []

    def decode(self, decoder: RowDecoder, body: bytes) -> Rows:
        """Decode a body into rows (raises InvalidRequest)."""
        for other, content, rows in self._decoded:
            if other is decoder and content is body:
                return Rows(rows.sent, [dict(row) for row in rows.values])
        rows = decoder.decode(body)
        self._decoded.append((decoder, body, Rows(rows.sent, [dict(row) for row in rows.values])))
        return rows
