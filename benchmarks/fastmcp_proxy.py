"""fastmcp as a proxy of one HTTP server, as its documentation has it; run by fastmcp's own interpreter."""

from __future__ import annotations

import sys

# Not a dependency of this project: it is installed beside, see `gateway_peers`.
from fastmcp.server import create_proxy  # type: ignore[import-not-found,unused-ignore]

URL, PORT = sys.argv[1:]
create_proxy(URL).run(transport="http", host="127.0.0.1", port=int(PORT), show_banner=False)
