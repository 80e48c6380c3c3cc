"""Certificates: files that prove a bound, and the independent program that checks them."""

from mipprune.certificate._certificate import KINDS, Certificate
from mipprune.certificate._checker import Verdict, verify
from mipprune.certificate._confirmed import confirmed
from mipprune.certificate._tree import LEAF, tree_certificate

__all__ = ["KINDS", "LEAF", "Certificate", "Verdict", "confirmed", "tree_certificate", "verify"]
