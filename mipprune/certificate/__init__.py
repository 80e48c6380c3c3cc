"""Certificates: files that prove a bound, and the independent program that checks them."""

from mipprune.certificate._certificate import KINDS, Certificate
from mipprune.certificate._checker import Verdict, verify

__all__ = ["KINDS", "Certificate", "Verdict", "verify"]
