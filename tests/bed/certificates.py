"""The keys and certificates of a cluster: its CA, and a leaf for each part. Never for anything real: one CA signs all.

Usage: certificates.py DIRECTORY...     one cluster in each
"""
import ipaddress
import os
import sys
from datetime import datetime, timedelta, timezone

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

SERVER, CLIENT = ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH
LOCAL = ["127.0.0.1", "localhost"]
KUBERNETES = ["10.96.0.1", "kubernetes", "kubernetes.default", "kubernetes.default.svc"]
# Name, group, user, names it answers to. To the API server a client's O is its group and its CN the user.
LEAVES = [
    ("apiserver", None, "kube-apiserver", LOCAL + KUBERNETES, [SERVER]),
    ("etcd", None, "etcd", LOCAL, [SERVER, CLIENT]),
    ("node", None, "node", LOCAL, [SERVER]),
    ("authenticator", None, "aws-iam-authenticator", LOCAL, [SERVER]),
    ("admin", "system:masters", "bed-admin", [], [CLIENT]),
    ("kubelet-client", "system:masters", "kube-apiserver-kubelet-client", [], [CLIENT]),
    ("front-proxy", None, "front-proxy", [], [CLIENT]),
    # What the bastion itself may be on a cluster without AWS: it may impersonate, and nothing else.
    ("impersonator", "stockade:bastion", "stockade-bastion", [], [CLIENT]),
    # One person's own certificate, for clusters that are entered with one.
    ("alice", "stockade:developers", "stockade:alice:certificate", [], [CLIENT]),
]


def name(group, user):
    parts = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group)] if group else []
    return x509.Name(parts + [x509.NameAttribute(NameOID.COMMON_NAME, user)])


def alternative(text):
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)


def builder(subject, issuer, key, life=timedelta(days=7)):
    start = datetime.now(timezone.utc) - timedelta(hours=1)
    return (x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key.public_key())
            .serial_number(x509.random_serial_number()).not_valid_before(start).not_valid_after(start + life))


def usage(**what):
    every = ["digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
             "key_cert_sign", "crl_sign", "encipher_only", "decipher_only"]
    return x509.KeyUsage(**{one: what.get(one, False) for one in every})


def write(path, data):
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(data)


def write_key(directory, leaf, key):
    write(os.path.join(directory, leaf + ".key"), key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()))


def make(directory):
    os.makedirs(directory, exist_ok=True)
    root, us = ec.generate_private_key(ec.SECP256R1()), name(None, os.path.basename(os.path.dirname(directory)) + " CA")
    ca = (builder(us, us, root).add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
          .add_extension(usage(key_cert_sign=True, crl_sign=True), critical=True).sign(root, hashes.SHA256()))
    write(os.path.join(directory, "ca.crt"), ca.public_bytes(serialization.Encoding.PEM))
    for leaf, group, user, names, uses in LEAVES:
        key = ec.generate_private_key(ec.SECP256R1())
        made = (builder(name(group, user), us, key)
                .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
                .add_extension(usage(digital_signature=True), critical=True)
                .add_extension(x509.ExtendedKeyUsage(uses), critical=False))
        if names:
            made = made.add_extension(x509.SubjectAlternativeName([alternative(one) for one in names]), critical=False)
        signed = made.sign(root, hashes.SHA256())
        write(os.path.join(directory, leaf + ".crt"), signed.public_bytes(serialization.Encoding.PEM))
        write_key(directory, leaf, key)
    # Service accounts' tokens.
    write_key(directory, "sa", ec.generate_private_key(ec.SECP256R1()))


if __name__ == "__main__":
    for place in sys.argv[1:]:
        make(os.path.abspath(place))
