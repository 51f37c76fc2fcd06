"""`curl -i URL` where there is no curl: run by pod as `python -m pilot_agent.demo.fetch URL`, inside the pod.

The options of curl that pod may give in front of the URL are passed over, but for `--header` and `--connect-to`.
"""

import sys
from urllib.parse import urlsplit

from pilot_agent.demo.http_request import request


def main(words: list[str]) -> int:
    headers: dict[str, str] = {}
    url = urlsplit(words.pop())
    host, port = url.hostname or "", url.port or 80
    headers["Host"] = url.netloc
    while words:
        option, value = words.pop(0), words.pop(0)
        if option == "--header":
            name, _, text = value.partition(":")
            headers[name] = text.strip()
        elif option == "--connect-to":
            _, _, host, port_text = value.rsplit(":", 3)
            port = int(port_text)
    answer = request(host, port, url.path or "/", headers=headers)
    if answer.status == 0:
        sys.stderr.write(f"{host}:{port}: {answer.body}\n")
        return 7  # curl's "could not connect"
    lines = [f"HTTP/1.1 {answer.status}", *(f"{name}: {value}" for name, value in answer.headers.items())]
    sys.stdout.write("\n".join([*lines, "", answer.body]))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
