"""Which parser reads which files: by the ending of the name, as the built-in table says or the experiment's file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from workbench.component import build, load_class
from workbench.data.documents.parser import PARSER, Parser
from workbench.errors import InputError, unknown

PACKAGE = "workbench.data.documents"
BUILTIN = {
    "text": f"{PACKAGE}.text:PlainText",
    "markdown": f"{PACKAGE}.markdown:Markdown",
    "html": f"{PACKAGE}.html:Html",
    "pdf": f"{PACKAGE}.pdf:Pdf",
    "docx": f"{PACKAGE}.docx:Docx",
    "epub": f"{PACKAGE}.epub:Epub",
    "pptx": f"{PACKAGE}.pptx:Pptx",
    "notebook": f"{PACKAGE}.notebooks:Notebook",
    "rst": f"{PACKAGE}.restructured:RestructuredText",
    "code": f"{PACKAGE}.source_code:SourceCode",
    "csv": f"{PACKAGE}.rows:Csv",
    "tsv": f"{PACKAGE}.rows:Tsv",
    "jsonl": f"{PACKAGE}.rows:JsonLines",
    "parquet": f"{PACKAGE}.rows:ParquetRows",
}
NONE = "none"  # files of this ending are left out
ENDINGS = {
    "txt": "text",
    "md": "markdown",
    "markdown": "markdown",
    "html": "html",
    "htm": "html",
    "xhtml": "html",
    "pdf": "pdf",
    "docx": "docx",
    "epub": "epub",
    "pptx": "pptx",
    "ipynb": "notebook",
    "rst": "rst",
}
# read only where the experiment's file says so: of a table it has to name the columns, and code may be no document
ASKED_FOR = {ending: ending for ending in ("csv", "tsv", "jsonl", "parquet")}
ASKED_FOR |= {"ndjson": "jsonl"} | dict.fromkeys(
    ("py", "js", "ts", "java", "c", "h", "cpp", "go", "rs", "rb", "r", "sh", "sql"), "code"
)
# read by no parser -> what can be done
WAYS_OUT = {
    "it is an archive; unpack it into the folder": "zip tar gz tgz bz2 xz 7z rar",
    "it is a picture; recognise its text first (OCR)": "png jpg jpeg tif tiff gif bmp webp heic",
    "it is of the format before 2007; save it in the newer one": "doc xls ppt",
    "save each of its sheets as CSV": "xlsx xlsm ods numbers",
    "save it as .docx or .pdf": "odt rtf pages wpd",
    "save it as .pptx or .pdf": "odp key",
    "save it as .pdf": "ps eps djvu xps",
    "save it as .epub": "mobi azw azw3",
    "save it as .html or .txt": "eml msg mht mhtml",
    "it leads to a document elsewhere; save the document itself": "gdoc gsheet gslides url webloc lnk",
    "write down what is said in it": "mp3 m4a wav mp4 mov mkv webm",
}
WAY_OUT = {ending: said for said, endings in WAYS_OUT.items() for ending in endings.split()}
WHERE = "dataset.parsers"


@dataclass(frozen=True)
class Choice:
    """A parser, and what another process makes it from.

    Attributes:
        parser: the parser.
        spec: its class, as ``package.module:Class`` or ``/folder/file.py:Class``.
    """

    parser: Parser
    spec: str

    @cached_property
    def definition(self) -> dict[str, Any]:
        """What of the parser decides its documents."""
        return self.parser.definition()


def choices(parsers: Mapping[str, Any]) -> dict[str, Choice | None]:
    """Ending of a name, in small letters and without its dot -> the parser of such files, or None where they are left out.

    Args:
        parsers: what the experiment's file says of some endings: a kind, a class of one's own as ``./file.py:Class``, either with
            settings as an object with the key ``kind``, or ``none``.

    Raises:
        InputError: there is no such kind or class, or it has no such setting.
    """
    found: dict[str, Choice | None] = {ending: _choice(kind, f"{WHERE}.{ending}") for ending, kind in ENDINGS.items()}
    for ending, value in parsers.items():
        name = ending.lower().lstrip(".")
        if not name:
            raise InputError(f"{WHERE}: received {ending!r}; allowed: the ending of files' names, such as pdf")
        found[name] = _choice(value, f"{WHERE}.{ending}")
    return found


def _choice(value: object, where: str) -> Choice | None:
    if value is None or value == NONE:
        return None
    settings = {str(key): one for key, one in value.items()} if isinstance(value, dict) else {"kind": value}
    kind = str(settings.get("kind", ""))
    if ":" not in kind and kind not in BUILTIN:
        allowed = [*BUILTIN, "./file.py:Class", "package.module:Class", NONE]
        raise InputError(f"{where}: {unknown('kind of parser', kind, allowed)}")
    spec = BUILTIN.get(kind, kind)
    cls = load_class(spec, PARSER)
    if kind not in BUILTIN and "kind" not in cls.model_fields:
        del settings["kind"]
    return Choice(build(cls, settings, where), spec)
