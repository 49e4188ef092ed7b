"""The images' health check: exit status 0 if the server in this container does its work.

In: the environment. PRECEPTOR_HEALTH_URL is asked with GET; with PRECEPTOR_HEALTH_MODEL it is asked for one token of
that model instead, as vLLM may call itself healthy with an engine that cannot answer. Standard library only, and little
of it: it runs every few seconds.
"""

import json
import os
import sys
from http.client import HTTPConnection, HTTPException
from urllib.parse import urlsplit

TIMEOUT_S = 20

url = urlsplit(os.environ["PRECEPTOR_HEALTH_URL"])
model = os.environ.get("PRECEPTOR_HEALTH_MODEL")
connection = HTTPConnection(url.hostname or "127.0.0.1", url.port or 80, timeout=TIMEOUT_S)
try:
    if model:
        body = json.dumps({"model": model, "prompt": "a", "max_tokens": 1})
        connection.request("POST", "/v1/completions", body, {"Content-Type": "application/json"})
    else:
        connection.request("GET", url.path)
    answer = connection.getresponse()
except (OSError, HTTPException) as error:
    sys.exit(f"{url.geturl()}: {error}")
if answer.status != 200:
    sys.exit(f"{url.geturl()} answered {answer.status}: {answer.read(200).decode(errors='replace')}")
