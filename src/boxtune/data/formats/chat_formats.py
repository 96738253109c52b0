"""Which files of conversations a path holds, whose format each of them is, and the readers of these formats."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from boxtune.data.draft import Options, Raw
from boxtune.data.formats.chat_dialects import DIALECTS, dialect_of
from boxtune.data.formats.chat_files import INFO, SUFFIXES, peek_entries, read_info
from boxtune.data.formats.chat_records import Entry, Keys, read_chat, shape_of
from boxtune.data.formats.conversations import draft_parts, read_part
from boxtune.data.formats.listing import peek_files
from boxtune.data.formats.shards import group_by_split, name_groups
from boxtune.errors import DataError, name_some

_MOST_FILES = 50  # a folder with more of them holds one file an image (labelme), which conversations never do


@dataclass(frozen=True, kw_only=True)
class _Known:
    """A file of conversations: the format it is and what shows it; what its keys are called, and the folder that its
    pictures' names start from, where that is said."""

    format: str
    reason: str
    keys: Keys | None = None
    base: Path | None = None


def find_chats(path: Path) -> dict[Path, _Known]:
    """The files of conversations with boxes at `path`, a folder or one file, judged by their first entries."""
    if path.is_file():
        if path.name == INFO:
            return _by_info(path.parent, only=None)
        return (_by_info(path.parent, only=path) or _by_entries(path)) if path.suffix.lower() in SUFFIXES else {}
    if not path.is_dir():
        return {}
    found: dict[Path, _Known] = {}
    for files in peek_files(path, SUFFIXES):
        if len(files) <= _MOST_FILES:
            found |= _by_info(files[0].parent, only=None)
            for file in files:
                found |= {} if file in found else _by_entries(file)
    return found


def _by_info(folder: Path, *, only: Path | None) -> dict[Path, _Known]:
    """The files that LLaMA-Factory's dataset_info.json in the folder names, or one of them."""
    info = folder / INFO
    found = {}
    for name, files in (read_info(info) if info.is_file() else {}).items():
        for file, keys in files.items():
            told = _trace(peek_entries(file), keys) if only in (None, file) else None
            if told:
                found[file] = _Known(format="llamafactory", reason=f"{name} in {INFO}, {told}", keys=keys, base=folder)
    return found


def _by_entries(file: Path) -> dict[Path, _Known]:
    entries = peek_entries(file)
    shapes = [shape_of(entry) for entry in entries]
    shape = shapes[0] if shapes else None
    trace = _trace(entries, None) if shape else None
    if shape is None or trace is None:
        return {}
    format = "msswift"
    if shape == "prefix":
        format = "florence2_jsonl" if trace == DIALECTS["florence2"].title else "paligemma_jsonl"
    elif shape == "conversations":
        dialect = next((name for name, one in DIALECTS.items() if one.title == trace), "")
        format = "qwenvl" if dialect in ("json", "gemini", "qwen2_vl", "qwen_vl") else "llava"
    return {file: _Known(format=format, reason=f"{shape} with {trace}")}


def _trace(entries: list[Entry], keys: Keys | None) -> str | None:
    """What shows that boxes are told: ms-swift's objects, or the dialect of the first answer that has some."""
    for entry in entries:
        try:
            chat = read_chat(entry, "", keys)
        except DataError:  # told by whoever reads the file
            continue
        if isinstance(chat.objects, dict | list | str) and "bbox" in str(chat.objects):
            return "objects"
        if chat.images:
            for turn in chat.turns:
                if (name := dialect_of(turn.answer)) is not None:
                    return DIALECTS[name].title
    return None


@dataclass(frozen=True, kw_only=True)
class ChatFormat:
    """One of the formats of conversations, with its sniffer and reader."""

    name: str

    def sniff(self, path: Path) -> str | None:
        """Why `path` looks like this format, judged by the first entries of its files; None if it does not."""
        root = path if path.is_dir() else path.parent
        found = {file: known for file, known in find_chats(path).items() if known.format == self.name}
        if not found:
            return None
        names = (file.relative_to(root).as_posix() for file in found)
        return f"{name_some(names)}: {next(iter(found.values())).reason}"

    def read(self, path: Path, options: Options) -> Raw:
        """The splits of the conversation files of this format at `path`, a folder or one file.

        Boxes are parsed out of the answers by the decoders of the families, whatever grammar an answer speaks, or taken
        from ms-swift's objects. All answers about a picture are put together. A picture of which an answer says that
        there is nothing is a negative; answers that are just talk are left out and counted. Raises DataError if there
        is no such file, if two are of the same split, if entries cannot be read, or if no answer holds a box.
        """
        root = path if path.is_dir() else path.parent
        known = find_chats(path)
        files = [file for file, one in known.items() if one.format == self.name]
        files = files or [*known] or ([path] if path.is_file() and path.name != INFO else [])
        if not files:
            fix = "give a .json or .jsonl of conversations whose answers hold boxes"
            raise DataError("no conversations with boxes were found", where=str(path), fix=fix)
        groups = group_by_split(files, root, one_home=False)
        for split, members in groups.items():
            if len(members) > 1:
                named = name_some(file.relative_to(root).as_posix() for file in members)
                what = f"{len(members)} files are all of the `{split}` split: {named}"
                raise DataError(what, where=str(root), fix="give the one that you mean")
        nothing = _Known(format=self.name, reason="")
        said = {split: (members[0], known.get(members[0]) or nothing) for split, members in groups.items()}
        parts = [read_part(split, file, one.keys, one.base) for split, (file, one) in said.items()]
        if not any(part.boxes for part in parts):
            told = [finding.seen for part in parts for finding in part.remarks.findings()]
            what = f"no answer holds a box ({'; '.join(told) or 'there is no answer'})"
            raise DataError(what, where=str(path), fix="write boxes in a family's grammar, see `boxtune families`")
        drafts, why = draft_parts(parts, options, path)
        return Raw(drafts=drafts, why=f"{name_groups(groups, root)}; {why}", read=(*files, root / INFO))


LLAMAFACTORY, MSSWIFT = ChatFormat(name="llamafactory"), ChatFormat(name="msswift")
QWENVL, LLAVA = ChatFormat(name="qwenvl"), ChatFormat(name="llava")
PALIGEMMA, FLORENCE2 = ChatFormat(name="paligemma_jsonl"), ChatFormat(name="florence2_jsonl")
