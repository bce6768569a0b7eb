"""Errors of drivers as these raise them, which cannot all be pickled.

They are imported where they are made: workers have no use for the rest.
"""

from __future__ import annotations

import sys
from typing import Any

from tests.faulty import by_value


def answered(status: int) -> Any:
    """Return what aiohttp raises for an HTTP status."""
    from aiohttp import ClientResponseError, RequestInfo
    from multidict import CIMultiDict, CIMultiDictProxy
    from yarl import URL

    url = URL("http://host/X/c/0")
    asked = RequestInfo(url, "GET", CIMultiDictProxy(CIMultiDict()), url)
    return ClientResponseError(asked, (), status=status, message="no")


def refused(code: str, status: int) -> Any:
    """Return what botocore raises for a code of S3."""
    from botocore.exceptions import ClientError

    error = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(error, "GetObject")


by_value(sys.modules[__name__])
