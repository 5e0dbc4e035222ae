"""Packed models: convert, run, account, save, load."""

from nodebits.runtime.account import Account, SiteAccount
from nodebits.runtime.container import read_header
from nodebits.runtime.convert import convert
from nodebits.runtime.file import load
from nodebits.runtime.packed import PackedModel

__all__ = [
    "Account",
    "PackedModel",
    "SiteAccount",
    "convert",
    "load",
    "read_header",
]
