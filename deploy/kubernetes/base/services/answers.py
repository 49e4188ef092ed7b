"""Whether the vLLM server of this pod answers a real request: status 0, or 1 with the reason on stderr.

`/health` alone does not tell: vLLM can report it and lose its engine at the first request. Standard library only, since
it runs in vLLM's own image. In: SERVED_MODEL, and PORT if it is not 8000. Waits for one answer.
"""

import json
import os
import sys
import urllib.error
import urllib.request

url = f"http://127.0.0.1:{os.environ.get('PORT', '8000')}/v1/completions"
body = {"model": os.environ["SERVED_MODEL"], "prompt": "a", "max_tokens": 1}
request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
try:
    with urllib.request.urlopen(request, timeout=60) as answer:
        chosen = json.load(answer)["choices"]
except (OSError, ValueError, KeyError) as error:
    sys.exit(f"no answer yet: {error}")
if not chosen:
    sys.exit("an answer without a choice")
