"""The bodies and parameters of requests, as pydantic models with Ward's value rules."""

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, Field, StringConstraints

from ward_peer.access import BIT, RANK

Environment = Literal["production", "staging", "development"]
Region = Literal["us-east-1", "ap-southeast-2", "eu-central-1", "ca-central-1"]
Connector = Literal[
    "revolution", "epic", "cerner", "allscripts", "fhir_store", "hubspot", "athenahealth", "charmhealth",
    "eclinicalworks", "meditab",
]  # fmt: skip

SEPARATORS = str.maketrans("", "", " .-()[]")
# The numbers that networks send for anonymous callers: words in the letters of a keypad.
WITHHELD = {"266696687", "7378742833", "86282452253", "8656696", "2562533"}


def no_nul(text: str) -> str:
    if "\0" in text:
        raise ValueError("A text must not contain the character U+0000")
    return text


def phone_number(text: str) -> str:
    number = text.strip().translate(SEPARATORS)
    digits = number[1:]
    formed = digits.isascii() and digits.isdigit() and 7 <= len(digits) <= 15 and digits[0] != "0"
    if number[:1] != "+" or not formed:
        raise ValueError("Not a phone number in international form, like +1 555 010 0001")
    if digits in WITHHELD:
        raise ValueError("This is how a keypad spells a withheld caller, not a number")
    return number


def known_role(name: str) -> str:
    if name not in RANK:
        raise ValueError("Unknown role. It must be viewer, member, operator, admin or owner")
    return name


def known_permission(name: str) -> str:
    if name not in BIT:
        raise ValueError("Unknown permission. The permission catalog lists them all")
    return name


Slug = Annotated[str, StringConstraints(min_length=2, max_length=63, pattern="^[a-z0-9][a-z0-9-]*[a-z0-9]$")]
Name = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1), AfterValidator(no_nul)]
Days = Annotated[int, Field(ge=1, le=90)]


class CreateWorkspaceRequest(BaseModel):
    slug: Slug
    name: Name
    environment: Environment
    region: Region = "us-east-1"
    backend_org_id: Name | None = None


class UpdateWorkspaceRequest(BaseModel):
    name: Name | None = None
    environment: Environment | None = None
    region: Region | None = None
    connector_type: Connector | None = None


class ArchiveWorkspaceRequest(BaseModel):
    slug: Slug


class TestCallerNumbersRequest(BaseModel):
    numbers: Annotated[list[Annotated[str, AfterValidator(phone_number)]], Field(max_length=20)]


class CreateApiKeyRequest(BaseModel):
    duration_days: Days
    name: Name | None = None
    role: Annotated[str, AfterValidator(known_role)] = "member"
    permissions: list[Annotated[str, AfterValidator(known_permission)]] = []
    speaks_for: Literal["self", "service"] = "service"


class RotateApiKeyRequest(BaseModel):
    duration_days: Days


class PageQuery(BaseModel):
    limit: Annotated[int, Field(gt=0, le=20)] = 10
    continuation_token: int = 0
