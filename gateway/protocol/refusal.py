"""What is answered to a request that is not valid HTTP: OpenAI's envelope, without a layer."""

import json

from gateway.protocol.cycle import status_line


class RequestRefused(Exception):
    """A request that is not to be served; the connection ends with the answer."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message

    def response(self) -> bytes:
        """The whole answer as it goes on the wire."""
        error = {
            "message": self.message,
            "type": "invalid_request_error",
            "param": None,
            "code": "bad_http",
        }
        body = json.dumps({"error": error}).encode()
        return b"%bcontent-type: application/json\r\ncontent-length: %d\r\n%b\r\n%b" % (
            status_line(self.status),
            len(body),
            b"connection: close\r\n",
            body,
        )
