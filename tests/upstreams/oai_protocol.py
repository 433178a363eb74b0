"""OAI-PMH 2.0 as DSpace speaks it: strict about arguments, stateless offset tokens, live lists."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple

from tests.upstreams.books import xml_text
from tests.upstreams.oai_records import DAYS, SECONDS, Records, Rendered, utc_stamp

PREFIX = "oai_dc"
LIST_VERBS = ("ListIdentifiers", "ListRecords")

# verb -> (required, optional); a resumptionToken is exclusive wherever it is allowed
_ARGUMENTS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "Identify": ((), ()),
    "ListMetadataFormats": ((), ("identifier",)),
    "ListSets": ((), ("resumptionToken",)),
    "ListIdentifiers": (("metadataPrefix",), ("from", "until", "set", "resumptionToken")),
    "ListRecords": (("metadataPrefix",), ("from", "until", "set", "resumptionToken")),
    "GetRecord": (("identifier", "metadataPrefix"), ()),
}
_OPENING = (
    '<?xml version="1.0" encoding="UTF-8"?><?xml-stylesheet type="text/xsl" href="static/style.xsl"?>'
    '<OAI-PMH xmlns="http://www.openarchives.org/OAI/2.0/"'
    ' xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"'
    ' xsi:schemaLocation="http://www.openarchives.org/OAI/2.0/'
    ' http://www.openarchives.org/OAI/2.0/OAI-PMH.xsd">'
)


class OaiError(Exception):
    """A protocol error, answered with HTTP status 200."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class Selection(NamedTuple):
    """What a list request asks for, and exactly what its resumption token says."""

    prefix: str
    since: str
    until: str
    set_spec: str
    offset: int

    def token(self, offset: int | str) -> str:
        """The token of the page that begins at `offset`: `oai_dc/<from>/<until>/<set>/<offset>`."""
        return f"{self.prefix}/{self.since}/{self.until}/{self.set_spec}/{offset}"


@dataclass(frozen=True)
class Page:
    """The answer to a list or GetRecord request before it is written as XML.

    `token` is None for no element and "" for the empty one that ends a list of several pages.
    """

    verb: str
    selection: Selection
    asked_token: str
    records: list[Rendered]
    size: int
    token: str | None = None
    expires: datetime | None = None

    def xml(self) -> bytes:
        """The verb's element."""
        parts = [each.header if self.verb == "ListIdentifiers" else each.record for each in self.records]
        return b"<%s>%s%s</%s>" % (self.verb.encode(), b"".join(parts), self._token_xml(), self.verb.encode())

    def _token_xml(self) -> bytes:
        if self.token is None:
            return b""
        expires = f' expirationDate="{utc_stamp(self.expires)}"' if self.expires else ""
        sizes = f'completeListSize="{self.size}" cursor="{self.selection.offset}"'
        return f"<resumptionToken{expires} {sizes}>{xml_text(self.token)}</resumptionToken>".encode()


Tweak = Callable[["Protocol", Page], Page]


@dataclass
class Protocol:
    """Answers requests from the records as they are at that moment."""

    records: Records
    base_url: str
    clock: Callable[[], datetime]
    page_size: int = 100
    granularity: str = SECONDS
    with_sets: bool = True
    token_lifetime: timedelta | None = None

    def answer(self, arguments: list[tuple[str, str]], tweak: Tweak | None = None) -> bytes:
        """The whole XML document; `tweak` may change a page or raise OaiError instead."""
        params = dict(arguments)
        try:
            self._check(arguments)
            body = self._dispatch(params, tweak)
        except OaiError as error:
            body = f'<error code="{error.code}">{xml_text(str(error))}</error>'.encode()
            # The specification forbids echoing arguments that were themselves in error.
            params = {} if error.code in ("badVerb", "badArgument") else params
        return self._envelope(params, body)

    def page(self, verb: str, selection: Selection, asked_token: str = "") -> Page:
        """One page of a list, with the token that follows it."""
        start, end = self._bounds(selection.since, selection.until)
        if selection.set_spec and not self.with_sets:
            raise OaiError("noSetHierarchy", "This repository has no sets")
        records, size = self.records.window(start, end, selection.set_spec, selection.offset, self.page_size)
        if not records:
            # DSpace says this past the end of a list that shrank, too.
            raise OaiError("noRecordsMatch", "No matches for the query")
        following = selection.offset + self.page_size
        at_end = "" if selection.offset else None
        token = selection.token(following) if following < size else at_end
        expires = self.clock() + self.token_lifetime if token and self.token_lifetime else None
        return Page(verb, selection, asked_token, records, size, token, expires)

    def read_token(self, token: str) -> Selection:
        """The selection a token stands for; OaiError if it is none of ours."""
        fields = token.split("/")
        known = len(fields) == 5 and fields[0] == PREFIX and re.fullmatch(r"[0-9]{1,9}", fields[4])
        try:
            if not known:
                raise ValueError(token)
            self._bounds(fields[1], fields[2])
        except (OaiError, ValueError):
            raise OaiError("badResumptionToken", f"The resumption token {token} is invalid") from None
        return Selection(*fields[:4], int(fields[4]))

    def already_listed(self, token: str) -> list[str]:
        """Identifiers on the pages before the one this token asks for."""
        selection = self.read_token(token)
        start, end = self._bounds(selection.since, selection.until)
        earlier, _ = self.records.window(start, end, selection.set_spec, 0, selection.offset)
        return [each.book.identifier for each in earlier]

    def _check(self, arguments: list[tuple[str, str]]) -> None:
        names = [name for name, _ in arguments]
        verb = dict(arguments).get("verb")
        if names.count("verb") != 1 or verb not in _ARGUMENTS:
            raise OaiError("badVerb", "The verb is missing, repeated or illegal")
        given = [name for name in names if name != "verb"]
        required, optional = _ARGUMENTS[verb]
        if "resumptionToken" in given and "resumptionToken" in optional:
            required, optional = ("resumptionToken",), ()
        for name in given:
            if name not in required + optional:
                raise OaiError("badArgument", f"Illegal argument {name}")
            if given.count(name) > 1:
                raise OaiError("badArgument", f"Repeated argument {name}")
        for name in required:
            if not dict(arguments).get(name):
                raise OaiError("badArgument", f"Missing argument {name}")

    def _dispatch(self, params: dict[str, str], tweak: Tweak | None) -> bytes:
        verb = params["verb"]
        if verb == "Identify":
            return self._identify()
        if verb == "ListMetadataFormats":
            return self._list_formats(params)
        if verb == "ListSets":
            return self._list_sets(params)
        page = self._get_record(params) if verb == "GetRecord" else self._list(params)
        return (tweak(self, page) if tweak else page).xml()

    def _list(self, params: dict[str, str]) -> Page:
        token = params.get("resumptionToken", "")
        if token:
            return self.page(params["verb"], self.read_token(token), token)
        _require_prefix(params["metadataPrefix"])
        for name in ("from", "until", "set"):
            if params.get(name) == "":
                raise OaiError("badArgument", f"Empty argument {name}")
        selection = Selection(PREFIX, params.get("from", ""), params.get("until", ""), params.get("set", ""), 0)
        return self.page(params["verb"], selection)

    def _get_record(self, params: dict[str, str]) -> Page:
        found = self._existing(params["identifier"])
        _require_prefix(params["metadataPrefix"])
        return Page("GetRecord", Selection(PREFIX, "", "", "", 0), "", [found], 1)

    def _existing(self, identifier: str) -> Rendered:
        found = self.records.get(identifier)
        if found is None:
            raise OaiError("idDoesNotExist", f"The identifier {identifier} is unknown here")
        return found

    def _bounds(self, since: str, until: str) -> tuple[str, str]:
        """Both ends as stamps to the second, each empty where open."""
        if since and until and len(since) != len(until):
            raise OaiError("badArgument", "from and until differ in granularity")
        start = since and self._second(since, "T00:00:00Z")
        end = until and self._second(until, "T23:59:59Z")
        if start and end and start > end:
            raise OaiError("badArgument", "from is later than until")
        return start, end

    def _second(self, stamp: str, rest_of_day: str) -> str:
        whole = stamp + rest_of_day if len(stamp) == len("2020-04-01") else stamp
        try:
            if not re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z", whole):
                raise ValueError(stamp)
            datetime.fromisoformat(whole)
        except ValueError:
            raise OaiError("badArgument", f"{stamp} is not a UTC date") from None
        if self.granularity == DAYS and whole == stamp:
            raise OaiError("badArgument", f"{stamp} is finer than this repository's granularity")
        return whole

    def _identify(self) -> bytes:
        earliest = self.records.earliest() or self.clock()
        return (
            "<Identify><repositoryName>Directory of Open Access Books (fake)</repositoryName>"
            f"<baseURL>{xml_text(self.base_url)}</baseURL><protocolVersion>2.0</protocolVersion>"
            "<adminEmail>nobody@example.org</adminEmail>"
            f"<earliestDatestamp>{utc_stamp(earliest, self.granularity)}</earliestDatestamp>"
            f"<deletedRecord>transient</deletedRecord><granularity>{self.granularity}</granularity>"
            "<compression>gzip</compression></Identify>"
        ).encode()

    def _list_formats(self, params: dict[str, str]) -> bytes:
        if "identifier" in params:
            self._existing(params["identifier"])
        return (
            b"<ListMetadataFormats><metadataFormat><metadataPrefix>oai_dc</metadataPrefix>"
            b"<schema>http://www.openarchives.org/OAI/2.0/oai_dc.xsd</schema>"
            b"<metadataNamespace>http://www.openarchives.org/OAI/2.0/oai_dc/</metadataNamespace>"
            b"</metadataFormat></ListMetadataFormats>"
        )

    def _list_sets(self, params: dict[str, str]) -> bytes:
        if not self.with_sets:
            raise OaiError("noSetHierarchy", "This repository has no sets")
        if "resumptionToken" in params:
            raise OaiError("badResumptionToken", "The list of sets has one page only")
        names = "".join(
            f"<set><setSpec>{xml_text(name)}</setSpec><setName>{xml_text(name)}</setName></set>"
            for name in self.records.sets()
        )
        return f"<ListSets>{names}</ListSets>".encode()

    def _envelope(self, params: dict[str, str], body: bytes) -> bytes:
        echo = "".join(f' {name}="{xml_text(value)}"' for name, value in params.items())
        request = f"<request{echo}>{xml_text(self.base_url)}</request>"
        opening = f"{_OPENING}<responseDate>{utc_stamp(self.clock())}</responseDate>{request}"
        return opening.encode() + body + b"</OAI-PMH>"


def _require_prefix(prefix: str) -> None:
    if prefix != PREFIX:
        raise OaiError("cannotDisseminateFormat", f"No format {prefix} here, only {PREFIX}")
