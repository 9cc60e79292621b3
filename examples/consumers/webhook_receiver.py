"""An endpoint for http.yaml that takes only what is signed with our key.

    pip install standardwebhooks
    WEBHOOK_SECRET=whsec_... PORT=8000 python webhook_receiver.py

An answer of 2xx means: this event is mine now. Whatever else is answered, it comes again, with the same webhook-id.
"""

import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from standardwebhooks.webhooks import Webhook, WebhookVerificationError

webhook = Webhook(os.environ["WEBHOOK_SECRET"])


class Receiver(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        try:
            event = webhook.verify(body, dict(self.headers))
        except WebhookVerificationError:
            self.send_response(401)
        else:
            print(event["type"], event["subject"], event["data"].get("after"), flush=True)
            self.send_response(204)
        self.end_headers()

    def log_message(self, *_):
        pass


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Receiver).serve_forever()
