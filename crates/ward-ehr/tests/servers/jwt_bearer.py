"""Authlib's authorization server with its JWT bearer grant. Prints one line of JSON: where it is, and the keys."""

import json
import logging
import os

from authlib.integrations.flask_oauth2 import AuthorizationServer
from authlib.oauth2.rfc7523 import JWTBearerGrant
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from flask import Flask
from joserfc import jws
from werkzeug.serving import make_server

os.environ["AUTHLIB_INSECURE_TRANSPORT"] = "1"
logging.getLogger("werkzeug").setLevel(logging.ERROR)
# The library verifies these two as well, once they are allowed.
jws.default_registry.allowed = ["RS384", "ES384"]

KEYS = {"rsa": rsa.generate_private_key(65537, 2048), "ec": ec.generate_private_key(ec.SECP384R1())}


def pem(key):
    form = serialization.PrivateFormat.PKCS8
    return key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()).decode()


def public_pem(key):
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_key().public_bytes(serialization.Encoding.PEM, form).decode()


class Client:
    """What the library asks of a client."""

    def __init__(self, kind):
        self.client_id = kind
        self.public_key = public_pem(KEYS[kind])

    def check_grant_type(self, grant_type):
        return grant_type == JWTBearerGrant.GRANT_TYPE

    def get_allowed_scope(self, scope):
        return scope if scope in ("", "notes:write") else ""


class Grant(JWTBearerGrant):
    """Who may state what: the issuers `rsa` and `ec`, about the subject `clinic`."""

    def get_audiences(self):
        return [f"{url}/token"]

    def resolve_issuer_client(self, issuer):
        return Client(issuer) if issuer in KEYS else None

    def resolve_client_public_key(self, client):
        from joserfc.jwk import import_key
        return import_key(client.public_key, client.client_id.upper())

    def authenticate_user(self, subject):
        return subject if subject == "clinic" else None

    def has_granted_permission(self, client, user):
        return True


app = Flask(__name__)
server = AuthorizationServer(app, query_client=lambda client_id: None, save_token=lambda token, request: None)
server.register_grant(Grant)


@app.route("/token", methods=["POST"])
def token():
    return server.create_token_response()


listening = make_server("127.0.0.1", 0, app, threaded=True)
url = f"http://127.0.0.1:{listening.port}"
print(json.dumps({"issuer": url, "rsa": pem(KEYS["rsa"]), "ec": pem(KEYS["ec"])}), flush=True)
listening.serve_forever()
