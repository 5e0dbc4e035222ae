"""Packed models: convert, run, account, save, load."""

from nodebits.runtime.account import Account, SiteAccount
from nodebits.runtime.convert import convert
from nodebits.runtime.file import load, read_header, save
from nodebits.runtime.packed import PackedModel

__all__ = [
    "Account",
    "PackedModel",
    "SiteAccount",
    "convert",
    "load",
    "read_header",
    "save",
]
