"""The safeguards of the package, each with what removes it and the tests that must fail then."""

from __future__ import annotations

from typing import NamedTuple


class Safeguard(NamedTuple):
    """A safeguard, and how to remove it.

    Args:
        name: What it holds.
        file: Its module, below `src/taghead`.
        old: The text that is replaced, which stands there once.
        new: What replaces it, so that the module still runs.
        tests: The tests that must fail without it, as node ids of pytest.
    """

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


CLASS_PATHS = "tests/test_class_paths.py::"
FILES = "tests/test_files.py::"
PROCESSES = "tests/test_processes.py::"
METRICS = "tests/test_metrics.py::"
CHECK = "tests/cli/test_check.py::"
READER = "tests/video/test_reader.py::"
DEMUX = "tests/video/test_demux.py::"
CONTAINERS = "tests/video/test_containers.py::"
BACKENDS = "tests/video/test_backends.py::"
SURVEYS = "tests/video/test_survey_cache.py::"
JOINED = "tests/video/test_transport_stream.py::"
FORMATS = "tests/data/annotations/test_formats.py::"
SCAN = "tests/data/index/test_scan.py::"
INDEX = "tests/data/index/test_index.py::"
CACHE = "tests/features/test_cache.py::"
WRITING = "tests/features/test_writing.py::"
WEIGHTS = "tests/backbones/test_weights.py::"
BUILD = "tests/backbones/test_build.py::TestAClassOfOnesOwn::"
CLASSIFIER = "tests/model/test_classifier.py::"
STORE = "tests/sweep/test_store.py::"
CHECKPOINTS = "tests/training/test_checkpoints.py::"
CLI = "tests/training/test_lightning_cli.py::"
FOLDER = "tests/training/test_run_folder.py::"
COMPATIBILITY = "tests/training/test_compatibility.py::"
PREDICTOR = "tests/inference/test_predictor.py::"

CODE = [  # whose code runs
    Safeguard(
        "state dicts are data",
        "files.py",
        'return torch.load(path, map_location="cpu", weights_only=True)',
        'return torch.load(path, map_location="cpu", weights_only=False)',
        (
            f"{WEIGHTS}test_a_file_with_code_is_refused_and_not_run",
            "tests/model/test_released.py::test_a_file_with_code_is_refused_and_not_run",
        ),
    ),
    Safeguard(
        "downloads are data",
        "backbones/weights.py",
        'return torch.load(cached, map_location="cpu", weights_only=True)',
        'return torch.load(cached, map_location="cpu", weights_only=False)',
        (f"{WEIGHTS}test_a_download_with_code_is_refused_and_not_run",),
    ),
    Safeguard(
        "checkpoints are data",
        "training/checkpoints.py",
        'torch.load(path, map_location="cpu", weights_only=True, mmap=True)',
        'torch.load(path, map_location="cpu", weights_only=False, mmap=True)',
        (f"{CHECKPOINTS}test_a_checkpoint_with_code_is_refused_and_not_run",),
    ),
    Safeguard(
        "Lightning reads checkpoints as data",
        "training/lightning_cli.py",
        'if options.get("weights_only") is None:',
        "if False:",
        (f"{CLI}test_a_checkpoint_is_read_as_data_and_its_hyper_parameters_not_at_all",),
    ),
    Safeguard(
        "hyper-parameters of a checkpoint are not read",
        "training/lightning_cli.py",
        "def _parse_ckpt_path(self) -> None:",
        "def _unused(self) -> None:",
        (f"{CLI}test_a_checkpoint_is_read_as_data_and_its_hyper_parameters_not_at_all",),
    ),
    Safeguard(
        "a task is not built of a checkpoint's hyper-parameters",
        "training/task.py",
        "    @classmethod\n    def load_from_checkpoint(",
        "    @classmethod\n    def _unused(",
        ("tests/training/test_task.py::test_a_task_of_a_checkpoint_is_that_of_its_arguments",),
    ),
    Safeguard(
        "data are not built of a checkpoint's hyper-parameters",
        "data/datamodule.py",
        "    @classmethod\n    def load_from_checkpoint(",
        "    @classmethod\n    def _unused(",
        ("tests/data/test_datamodule.py::test_a_checkpoint_holds_no_data",),
    ),
    Safeguard(
        "class paths of data are allowed ones",
        "class_paths.py",
        'if not any(path.startswith(f"{module}.") for module in (*packages, *_named)):',
        "if False:",
        (
            f"{CLASS_PATHS}test_a_module_of_the_working_folder_is_found_only_if_it_is_named",
            f"{CLASSIFIER}test_a_config_imports_no_module_that_was_not_named",
        ),
    ),
    Safeguard(
        "a package is not any that begins like it",
        "class_paths.py",
        'if not any(path.startswith(f"{module}.") for module in (*packages, *_named)):',
        "if not any(path.startswith(module) for module in (*packages, *_named)):",
        (f"{CLASS_PATHS}test_paths_that_lead_to_no_class",),
    ),
    Safeguard(
        "class paths of configs are allowed ones, by whole names",
        "class_paths.py",
        'return any(path.startswith(f"{module}.") for module in (*PACKAGES, *_named, *named))',
        "return any(path.startswith(module) for module in (*PACKAGES, *_named, *named))",
        (
            f"{CLASS_PATHS}test_a_module_of_the_working_folder_is_found_only_if_it_is_named",
            f"{CHECK}test_a_class_of_a_module_that_was_not_named",
        ),
    ),
    Safeguard(
        "a class path is dotted names",
        "class_paths.py",
        'if not isinstance(path, str) or "." not in path or not _is_dotted(path):',
        'if not isinstance(path, str) or "." not in path:',
        (f"{CLASS_PATHS}test_paths_that_lead_to_no_class",),
    ),
    Safeguard(
        "a class path leads to a class of its kind",
        "class_paths.py",
        "if not (inspect.isclass(found) and issubclass(found, base)):",
        "if False:",
        (
            f"{CLASS_PATHS}test_paths_that_lead_to_no_class",
            f"{BUILD}test_other_paths_are_refused",
        ),
    ),
    Safeguard(
        "options of a class in data are no classes",
        "class_paths.py",
        "if _holds_class(value):",
        "if False:",
        (f"{CLASS_PATHS}test_options_are_plain_values",),
    ),
    Safeguard(
        "class paths in data lead to listed classes of torch and PyG",
        "components/classes.py",
        "    if listed is None or not is_there:\n",
        '    if listed is None:\n        module, _, name = path.rpartition(".")\n'
        "        return getattr(__import__(module, fromlist=[name]), name)\n    if not is_there:\n",
        ("tests/test_components.py::test_what_stands_for_none_is_refused",),
    ),
    Safeguard(
        "other class paths in data lead to this package and named modules",
        "components/classes.py",
        "        found = import_class(path, base, OWN)\n",
        '        module, _, name = str(path).rpartition(".")\n'
        "        found = getattr(__import__(module, fromlist=[name]), name)\n",
        (f"{CLASSIFIER}test_a_config_imports_no_module_that_was_not_named",),
    ),
    Safeguard(
        "a backbone of one's own is an allowed Backbone",
        "backbones/build.py",
        "cls: Any = import_class(path, Backbone, PACKAGES)",
        'module, _, name = path.rpartition(".")\n'
        "        cls: Any = getattr(importlib.import_module(module), name)",
        (f"{BUILD}test_other_paths_are_refused",),
    ),
    Safeguard(
        "a backbone of data comes from this package",
        "backbones/build.py",
        'PACKAGES = ("taghead",)',
        'PACKAGES = ("taghead", "torch")',
        (f"{BUILD}test_other_paths_are_refused",),
    ),
    Safeguard(
        "a program is not imported for a class",
        "class_paths.py",
        'return all(part.isidentifier() and part != "__main__" for part in parts)',
        "return all(part.isidentifier() for part in parts)",
        (f"{BUILD}test_other_paths_are_refused",),
    ),
    Safeguard(
        "modules of the standard library are not named",
        "class_paths.py",
        "if not _is_dotted(name) or top in sys.stdlib_module_names:",
        "if not _is_dotted(name):",
        (f"{CLASS_PATHS}test_what_no_module_of_ones_own_is_called",),
    ),
    Safeguard(
        "of the working folder only named modules are found",
        "class_paths.py",
        "folder = self.folders.get(name)",
        "folder = self.folders.get(name, *self.folders.values())",
        (f"{CLASS_PATHS}test_a_module_of_the_working_folder_is_found_only_if_it_is_named",),
    ),
    Safeguard(
        "the parser imports allowed packages alone",
        "class_paths.py",
        'import_path_allowlist=[*PACKAGES, *_named],\n        import_path_denylist=["*"],',
        "import_path_denylist=[],",
        (f"{CLASS_PATHS}test_a_parser_imports_only_what_is_allowed",),
    ),
    Safeguard(
        "the parser reads no file system of fsspec",
        "class_paths.py",
        "config_read_mode_fsspec_enabled=False",
        "config_read_mode_fsspec_enabled=True",
        (f"{CLASS_PATHS}test_a_parser_reads_no_address",),
    ),
    Safeguard(
        "class paths are checked before anything is imported",
        "cli/check.py",
        "if CLASS_PATH.fullmatch(path) and not is_file and not is_allowed(path, self.modules):",
        "if False:",
        (f"{CHECK}test_a_class_of_a_module_that_was_not_named",),
    ),
    Safeguard(
        "a config names no modules",
        "cli/check.py",
        'raise UsageError(f"{where}: only the command line names modules: --modules=NAME")',
        "return",
        (f"{CHECK}test_only_the_command_line_names_modules",),
    ),
    Safeguard(
        "an address is told as such",
        "class_paths.py",
        "if isinstance(value, str) and ADDRESS.fullmatch(value):",
        "if False:",
        (f"{CLASS_PATHS}test_addresses",),
    ),
    Safeguard(
        "a checkpoint is no address",
        "training/lightning_cli.py",
        'refuse_address("ckpt_path", self.config[subcommand].get("ckpt_path"))',
        "pass",
        (f"{CLI}test_a_checkpoint_is_no_address",),
    ),
    Safeguard(
        "a callback's state holds no address",
        "training/lightning_cli.py",
        "if ADDRESS.fullmatch(text):",
        "if False:",
        (f"{CHECKPOINTS}test_a_state_with_an_address_is_refused",),
    ),
    Safeguard(
        "a run of a sweep has the config of its id",
        "sweep/trial_attributes.py",
        "    if is_changed:\n",
        "    if False:\n",
        (f"{STORE}test_a_config_that_was_changed_is_not_done",),
    ),
    Safeguard(
        "a worker does the runs of its own sweep file",
        "sweep/store.py",
        'return runs is not None and trial.user_attrs["run"] not in runs',
        "return False",
        (f"{STORE}test_a_run_that_the_sweep_file_does_not_have_is_left_to_others",),
    ),
    Safeguard(
        "a sweep's name stays in its folder",
        "sweep/spec.py",
        "if not isinstance(name, str) or not NAME.fullmatch(name):",
        "if not isinstance(name, str):",
        ("tests/sweep/test_spec.py::test_mistakes_are_told_in_a_line",),
    ),
    Safeguard(
        "a download has its known checksum",
        "backbones/weights.py",
        "expected = SHA256.get(cached.name) or (digits[1] if digits else None)",
        "expected = digits[1] if digits else None",
        (f"{WEIGHTS}test_a_known_checksum_is_compared_as_a_whole",),
    ),
    Safeguard(
        "a download has the digits of its name",
        "backbones/weights.py",
        "torch.hub.download_url_to_file(url, str(cached), expected)",
        "torch.hub.download_url_to_file(url, str(cached))",
        (f"{WEIGHTS}test_a_download_whose_hash_differs_is_refused",),
    ),
    Safeguard(
        "a cached download has its checksum",
        "backbones/weights.py",
        "if expected and cached.is_file() and not _sha256(cached).startswith(expected):",
        "if False:",
        (f"{WEIGHTS}test_a_download_that_was_damaged_is_downloaded_again",),
    ),
    Safeguard(
        "a revision of the hub is pinned",
        "model/classifier.py",
        '{"revision": revision, **hub_options}',
        "{**hub_options}",
        (f"{CLASSIFIER}test_an_upload_is_one_call_and_comes_back",),
    ),
    Safeguard(
        "the hub gives a config and weights alone",
        "model/classifier.py",
        "snapshot_download(str(name), allow_patterns=files, **hub_options)",
        "snapshot_download(str(name), **hub_options)",
        (f"{CLASSIFIER}test_an_upload_is_one_call_and_comes_back",),
    ),
]

VIDEO = [
    Safeguard(
        "FFmpeg opens files alone",
        "video/demux.py",
        '                "protocol_whitelist": "file",\n',
        "",
        (f"{DEMUX}test_ffmpeg_is_given_a_file_and_nothing_else",),
    ),
    Safeguard(
        "a colon in a name is no protocol",
        "video/demux.py",
        'f"file:{path}",',
        'f"{path}",',
        (f"{READER}test_awkward_names", f"{DEMUX}test_ffmpeg_is_given_a_file_and_nothing_else"),
    ),
    Safeguard(
        "a colon in a name is no protocol for decord",
        "video/decode/decord.py",
        'f"file:{survey.path}"',
        'f"{survey.path}"',
        (f"{BACKENDS}test_awkward_names",),
    ),
    Safeguard(
        "a percent sign in a name is no pattern",
        "video/demux.py",
        '                "pattern_type": "none",\n',
        "",
        (f"{READER}test_a_pattern_of_image_names_is_the_name_of_one_file",),
    ),
    Safeguard(
        "a list of files (concat) is no video",
        "video/demux.py",
        'frozenset({"tty", "concat", "dash", "hls"})',
        'frozenset({"tty", "dash", "hls"})',
        (f"{READER}test_faults_name_the_file_and_the_reason[playlist]",),
    ),
    Safeguard(
        "an HLS playlist is no video",
        "video/demux.py",
        'frozenset({"tty", "concat", "dash", "hls"})',
        'frozenset({"tty", "concat", "dash"})',
        (f"{DEMUX}test_playlists_are_no_videos",),
    ),
    Safeguard(
        "text is no video",
        "video/demux.py",
        'frozenset({"tty", "concat", "dash", "hls"})',
        'frozenset({"concat", "dash", "hls"})',
        (f"{READER}test_faults_name_the_file_and_the_reason[poem]",),
    ),
    Safeguard(
        "pipes and devices are no videos",
        "video/demux.py",
        "if not path.is_file():",
        "if path.is_block_device():",
        (f"{READER}test_faults_name_the_file_and_the_reason[pipe]",),
    ),
    Safeguard(
        "a file is as long as its container says",
        "video/demux.py",
        "        check_complete(path)\n",
        "",
        (f"{CONTAINERS}test_a_truncated_file_is_refused",),
    ),
    Safeguard(
        "blocks of Matroska and AVI join up",
        "video/containers.py",
        "        if after > ends[-1][0] or not kind.isascii():\n            raise",
        "        if False:\n            raise",
        (f"{CONTAINERS}test_damage_that_the_demuxer_passes_over[a.avi-libx264]",),
    ),
    Safeguard(
        "clusters of Matroska join up",
        "video/containers.py",
        "if child == _CLUSTER and child_end is not None:",
        "if False:",
        (f"{CONTAINERS}test_damage_that_the_demuxer_passes_over[a.webm-libvpx]",),
    ),
    Safeguard(
        "lists of RIFF are not nested deeply",
        "video/containers.py",
        "if len(ends) > _MAX_LISTS:",
        "if False:",
        (f"{CONTAINERS}test_lists_in_lists",),
    ),
    Safeguard(
        "a sound file's cover is no video",
        "video/demux.py",
        "or stream.disposition & Disposition.attached_pic:",
        "or False:",
        (f"{DEMUX}test_a_cover_is_no_video",),
    ),
    Safeguard(
        "frames have a limited size",
        "video/limits.py",
        "if height * width > self.max_pixels:",
        "if False:",
        ("tests/video/test_preprocessing.py::test_frames_that_are_too_large_are_refused",),
    ),
    Safeguard(
        "a decoder allocates no larger frames",
        "video/demux.py",
        "        stream.codec_context.options = limit\n",
        "",
        (f"{READER}test_a_frame_that_is_larger_than_the_first_is_damage",),
    ),
    Safeguard(
        "clips have a limited size",
        "video/limits.py",
        "if num_bytes > self.max_clip_bytes:",
        "if False:",
        ("tests/video/test_preprocessing.py::test_clips_that_are_too_large_are_refused",),
    ),
    Safeguard(
        "a corrupt packet is an error",
        "video/demux.py",
        "if num_corrupt > num_joins:",
        "if False:",
        (f"{JOINED}test_bytes_between_parts_are_damage",),
    ),
    Safeguard(
        "a join of transport streams loses no packet",
        "video/transport_stream.py",
        "if at == 0 or starts[at] != join:",
        "if at == 0:",
        (f"{JOINED}test_every_lost_packet_is_damage",),
    ),
    Safeguard(
        "a part of a transport stream ends with a whole frame",
        "video/transport_stream.py",
        "if not _is_whole(before, headers[join - 1]):",
        "if False:",
        (f"{JOINED}test_a_part_that_ends_within_a_picture_is_damaged",),
    ),
    Safeguard(
        "a part of a transport stream begins anew",
        "video/transport_stream.py",
        "if not bitstream.starts_anew(codec, _frame(behind), 0):",
        "if False:",
        (f"{JOINED}test_a_part_that_refers_to_what_is_gone_is_damaged",),
    ),
    Safeguard(
        "pre-roll is not shown",
        "video/survey.py",
        "found.append(PacketInfo(packet.pts, pictures, packet.is_discard))",
        "found.append(PacketInfo(packet.pts, pictures, False))",
        (f"{READER}test_cut_by_stream_copy",),
    ),
    Safeguard(
        "pre-roll is decoded",
        "video/demux.py",
        "if not packet.is_discard:",
        "if True:",
        (f"{READER}test_damage_in_the_pre_roll",),
    ),
    Safeguard(
        "hidden pictures do not count",
        "video/survey.py",
        'counted = codec in ("vp8", "vp9")',
        "counted = False",
        (f"{READER}test_hidden_vp8_frames_do_not_count",),
    ),
    Safeguard(
        "a decoded frame has its packet's time",
        "video/decode/pyav.py",
        "whole = whole and time == frame.pts",
        "whole = True",
        (f"{READER}test_damage_in_the_pre_roll",),
    ),
    Safeguard(
        "a frame behind a seek has its packet's time",
        "video/decode/pyav.py",
        "if frame.is_corrupt or frame.pts != due:",
        "if frame.is_corrupt:",
        (f"{SURVEYS}test_no_frame_is_given_for_another",),
    ),
    Safeguard(
        "a file has as many frames as its packets show",
        "video/reader.py",
        "if len(timestamps) < known.min_frames:",
        "if False:",
        (f"{SURVEYS}test_fewer_frames_than_packets_show_are_damage",),
    ),
    Safeguard(
        "a keyframe of a gradual refresh is no seek point",
        "video/survey.py",
        "if packet.is_keyframe and bitstream.can_start(codec, memoryview(packet), width):",
        "if packet.is_keyframe:",
        (f"{BACKENDS}test_a_keyframe_that_begins_a_gradual_refresh_is_no_start",),
    ),
    Safeguard(
        "times are those of packets",
        "video/reader.py",
        "        if start.denominator == 1:",
        "        if rate:\n            return np.arange(num_frames) / rate\n"
        "        if start.denominator == 1:",
        ("tests/video/test_segment.py::test_times_of_variable_frame_rate",),
    ),
    Safeguard(
        "times of AVI are decode times",
        "video/frame_times.py",
        'if container != "avi" and has_pts:',
        "if has_pts:",
        (
            "tests/video/test_frame_times.py::"
            "test_avi_has_the_decode_times_of_packets_on_which_frames_come_out",
        ),
    ),
    Safeguard(
        "a segment ends within its file",
        "video/segment.py",
        "if self.start >= len(reader) or end > len(reader):",
        "if False:",
        ("tests/video/test_segment.py::test_segments_past_the_end",),
    ),
    Safeguard(
        "interlaced frames are scaled as pictures",
        "video/rgb.py",
        "if frame.interlaced_frame and (",
        "if False and (",
        ("tests/video/test_rgb.py::test_interlaced_frames_are_scaled_as_pictures",),
    ),
    Safeguard(
        "decord reads no open GOPs",
        "video/decode/allowlist.py",
        "elif survey.has_open_gops:",
        "elif False:",
        (f"{BACKENDS}test_refusals",),
    ),
    Safeguard(
        "decord reads no cut file",
        "video/decode/allowlist.py",
        "elif not survey.shown.all():",
        "elif False:",
        (f"{BACKENDS}test_refusals",),
    ),
    Safeguard(
        "decord counts as the packets do",
        "video/decode/allowlist.py",
        "if counted != num_packets:",
        "if False:",
        (f"{BACKENDS}test_decord_never_reads_a_file_that_it_counts_otherwise",),
    ),
    Safeguard(
        "a survey is of the file as it is",
        "video/survey.py",
        "return self.stamp is not None and stamp_of(self.path) == self.stamp",
        "return self.stamp is not None",
        (f"{SURVEYS}test_a_changed_file_is_surveyed_anew",),
    ),
    Safeguard(
        "a file that was just written has no stamp",
        "video/file_stamp.py",
        "return stamp if age_ns >= SETTLED_SEC * 1e9 else None",
        "return stamp",
        (f"{SURVEYS}test_a_file_that_was_just_written_is_not_remembered",),
    ),
    Safeguard(
        "a stored survey is of the file's content",
        "video/survey_cache.py",
        'if content["file"][2] != _digest(path):',
        "if False:",
        (f"{SURVEYS}test_stored_surveys_of_something_else_are_passed_over[digest]",),
    ),
    Safeguard(
        "a stored survey is no bomb",
        "video/survey_cache.py",
        "content = stream.decompress(data, MAX_BYTES)",
        "content = stream.decompress(data)",
        (f"{SURVEYS}test_a_stored_survey_that_is_a_bomb_is_passed_over",),
    ),
    Safeguard(
        "a stored survey is whole",
        "video/survey_cache.py",
        "return found if _is_whole(found) else None",
        "return found",
        (f"{SURVEYS}test_stored_surveys_of_other_values_are_passed_over",),
    ),
    Safeguard(
        "a stored survey is of these versions",
        "video/survey_cache.py",
        'if content["versions"] != _versions() or content["file"][:2] != [*stamp[:2]]:',
        'if content["file"][:2] != [*stamp[:2]]:',
        (f"{SURVEYS}test_stored_surveys_of_something_else_are_passed_over[versions]",),
    ),
]

DATA = [
    Safeguard(
        "annotations stay in the folder of videos",
        "data/annotations/clip_path.py",
        "if outside_root or is_inside(path, root):",
        "if True:",
        (f"{FORMATS}test_a_format_that_leaves_the_folder_of_videos_is_refused",),
    ),
    Safeguard(
        "formats that do not check their paths are checked",
        "data/annotations/annotation_format.py",
        "            _check_inside(source, clips[split], arguments)\n",
        "",
        (f"{FORMATS}test_a_format_of_ones_own_stays_in_the_folder_of_videos",),
    ),
    Safeguard(
        "a video of FineGym has a bare name",
        "data/annotations/formats/finegym.py",
        r'r"(?P<video>[^\s/\\]+)_(?P<event>',
        r'r"(?P<video>\S+)_(?P<event>',
        ("tests/data/annotations/test_finegym.py::test_a_wrong_line_is_named",),
    ),
    Safeguard(
        "pipes and devices are no annotations",
        "data/annotations/text_files.py",
        "if path.exists() and not path.is_file() and not path.is_dir():",
        "if path.is_fifo():",
        (f"{FORMATS}test_a_device_is_no_class_list",),
    ),
    Safeguard(
        "JSON that is nested deeply is refused",
        "files.py",
        "    except RecursionError:\n",
        "    except ZeroDivisionError:\n",
        (f"{FORMATS}test_json_that_is_nested_deeply_is_refused",),
    ),
    Safeguard(
        "class numbers are bounded",
        "data/annotations/class_table.py",
        "return int(text) if text.isdecimal() and len(text) <= MAX_DIGITS else None",
        "return int(text) if text.isdecimal() else None",
        (f"{FORMATS}test_a_class_number_of_many_digits_is_none",),
    ),
    Safeguard(
        "class numbers have no gap",
        "data/annotations/class_list.py",
        "    if missing or lowest < 0:\n",
        "    if False:\n",
        ("tests/data/annotations/test_reference.py::test_numbers_have_no_gap",),
    ),
    Safeguard(
        "a label is among the classes",
        "data/annotations/class_list.py",
        "if not 0 <= label < len(classes):",
        "if False:",
        (f"{FORMATS}test_diving48_entries_that_are_wrong",),
    ),
    Safeguard(
        "a split's classes are those of training",
        "data/annotations/class_list.py",
        "        if wanted != clip.label:\n",
        "        if False:\n",
        (
            "tests/data/annotations/test_reference.py::test_classes_of_a_split_are_those_of_training",
        ),
    ),
    Safeguard(
        "a header is no clip",
        "data/annotations/formats/plain_csv.py",
        "if named or (len(others) and (numbered or suffixed)):",
        "if False:",
        (f"{FORMATS}test_plain_files_that_are_wrong",),
    ),
    Safeguard(
        "a folder beside the splits is not left out",
        "data/annotations/formats/class_folders.py",
        "        _check_siblings(root, found)\n",
        "",
        (f"{FORMATS}test_a_folder_beside_those_of_splits_is_refused",),
    ),
    Safeguard(
        "a journal is of its folder and versions",
        "data/index/journal.py",
        "if lines and _parsed(lines[0]) == self.header:",
        "if lines:",
        (f"{SCAN}test_a_journal_of_something_else_is_started_anew",),
    ),
    Safeguard(
        "a journal has results at once",
        "data/index/scan.py",
        "journal.add([result for result in several if not result.is_transient])",
        "pass",
        (f"{INDEX}test_without_a_manifest_clips_are_read_once",),
    ),
    Safeguard(
        "what is this machine's fault is not remembered",
        "data/index/scan.py",
        "journal.add([result for result in several if not result.is_transient])",
        "journal.add(several)",
        (f"{SCAN}test_a_process_that_is_killed_is_not_the_clips_fault",),
    ),
    Safeguard(
        "a manifest is of its version",
        "data/index/manifest.py",
        "if version != SCHEMA_VERSION:",
        "if False:",
        (f"{INDEX}test_manifests_that_are_none",),
    ),
    Safeguard(
        "scan results have their types",
        "data/index/scan_result.py",
        "if type(value) not in types.get(name, ()):",
        "if False:",
        (
            f"{SCAN}test_lines_of_a_journal_that_hold_no_results_are_passed_over",
            f"{INDEX}test_manifests_with_values_of_other_types",
        ),
    ),
    Safeguard(
        "trials of a store have their types",
        "sweep/trial_attributes.py",
        "if not isinstance(stored.config, dict) or type(seed) is not int:",
        "if False:",
        (f"{STORE}test_a_trial_of_a_stranger_is_refused_by_its_number",),
    ),
    Safeguard(
        "parts of a checkpoint have their types",
        "training/checkpoints.py",
        "if not isinstance(content.get(name), kind | None):",
        "if False:",
        (f"{CHECKPOINTS}test_parts_of_a_checkpoint_have_their_types",),
    ),
    Safeguard(
        "features take no more memory than their shards have",
        "features/shards.py",
        "if found != (self.dtype, self.shape, [0, size]) or 8 + length + size != num_bytes:",
        "if False:",
        (f"{CACHE}test_sizes_that_the_shards_do_not_have_take_no_memory",),
    ),
    Safeguard(
        "a manifest is of its folder of videos",
        "data/index/command.py",
        "if Path(text_to_name(of)).absolute() != Path(root).absolute():",
        "if False:",
        (f"{INDEX}test_outputs_of_something_else",),
    ),
    Safeguard(
        "readers end with a training that is killed",
        "data/datamodule.py",
        '            "worker_init_fn": start_worker,\n',
        "",
        ("tests/data/test_datamodule.py::test_readers_end_with_a_training_that_is_killed",),
    ),
    Safeguard(
        "readers end with an extraction that is killed",
        "features/view_dataset.py",
        "        worker_init_fn=start_worker,\n",
        "",
        ("tests/features/test_writing.py::test_readers_end_with_an_extraction_that_is_killed",),
    ),
    Safeguard(
        "workers end with their parent",
        "processes.py",
        "    end_with_parent()\n\n\ndef end_workers",
        "    pass\n\n\ndef end_workers",
        (f"{PROCESSES}test_a_worker_ends_with_a_parent_that_is_killed",),
    ),
    Safeguard(
        "workers leave Ctrl-C to their parent",
        "processes.py",
        "    signal.signal(signal.SIGINT, signal.SIG_IGN)\n",
        "",
        (f"{PROCESSES}test_workers_leave_interrupts_to_their_parent",),
    ),
    Safeguard(
        "a reader that stops is an error",
        "data/datamodule.py",
        '"timeout": self.timeout_sec if self.num_workers > 0 else 0,',
        '"timeout": 0,',
        ("tests/data/test_datamodule.py::test_loaders_wait_for_a_bounded_time",),
    ),
    Safeguard(
        "a job of a worker takes a bounded time",
        "data/workers.py",
        "self.function, (self.job,), timeout=self.limit_sec",
        "self.function, (self.job,), timeout=30",
        ("tests/data/test_workers.py::test_a_job_that_does_not_end_is_ended",),
    ),
    Safeguard(
        "shards have their checksums",
        "features/shards.py",
        'if hashlib.file_digest(file, "sha256").hexdigest() != self.sha256:',
        "if False:",
        (f"{CACHE}test_damaged_and_swapped_feature_maps_are_refused_at_the_first_read",),
    ),
    Safeguard(
        "shards of an earlier run have their checksums",
        "features/shards.py",
        "if _sha256(feature_maps) != finished.sha256:",
        "if False:",
        (f"{WRITING}test_shards_that_were_damaged_are_written_anew",),
    ),
    Safeguard(
        "a shard lies in its cache's folder",
        "features/cache.py",
        "if Path(name).name != name:",
        "if False:",
        (f"{CACHE}test_a_shard_outside_the_folder_is_refused",),
    ),
    Safeguard(
        "pipes in a cache are refused",
        "features/feature_spec.py",
        "if path.exists() and not path.is_file():",
        "if path.is_block_device():",
        (f"{CACHE}test_a_device_is_no_manifest",),
    ),
    Safeguard(
        "weights of a cached backbone have their checksum",
        "features/cache.py",
        "if found != wanted:",
        "if False:",
        ("tests/features/test_training.py::test_weights_that_changed_on_disk_are_refused",),
    ),
    Safeguard(
        "a cache has one writer",
        "features/writer.py",
        "            self._lock.acquire()\n",
        "            pass\n",
        (f"{WRITING}test_one_writer_at_a_time",),
    ),
    Safeguard(
        "a cache of another spec is left alone",
        "features/writer.py",
        "spec_of(manifest, self.root).check_same(self.spec, self.root)",
        "pass",
        (f"{WRITING}test_a_cache_of_another_recipe_is_left_alone",),
    ),
    Safeguard(
        "a folder of anything else is left alone",
        "features/writer.py",
        "if MANIFEST not in visible and not visible <= own:",
        "if False:",
        (f"{WRITING}test_a_folder_with_anything_else_is_left_alone",),
    ),
    Safeguard(
        "features are finite",
        "features/frozen_backbone.py",
        "if not feature_map.isfinite().all():",
        "if False:",
        (f"{WRITING}test_numbers_that_do_not_fit_into_float16_are_an_error",),
    ),
]

WRITES = [
    Safeguard(
        "a file is written beside its name",
        "files.py",
        'partial = path.with_name(f"{UNFINISHED}{_process()}-{path.name}")',
        "partial = path",
        (
            f"{FILES}test_a_file_appears_complete_or_not_at_all",
            f"{CHECKPOINTS}test_checkpoints_appear_whole",
        ),
    ),
    Safeguard(
        "a file is on disk before it has its name",
        "files.py",
        "        sync(partial)\n        os.replace(partial, path)\n",
        "        os.replace(partial, path)\n",
        (f"{FILES}test_a_file_is_on_disk_before_it_has_its_name",),
    ),
    Safeguard(
        "the name of a file is on disk",
        "files.py",
        "        raise\n    sync(path.parent)\n",
        "        raise\n",
        (f"{FILES}test_a_file_is_on_disk_before_it_has_its_name",),
    ),
    Safeguard(
        "a half-written file is removed",
        "files.py",
        "        partial.unlink(missing_ok=True)\n",
        "",
        (f"{FILES}test_a_file_appears_complete_or_not_at_all",),
    ),
    Safeguard(
        "files can be read by others",
        "files.py",
        "        _make_readable(partial)\n",
        "",
        (f"{FILES}test_files_are_readable_by_others",),
    ),
    Safeguard(
        "files of a folder can be read by others",
        "files.py",
        "                _make_readable(file)\n",
        "",
        (f"{FILES}test_files_are_readable_by_others",),
    ),
    Safeguard(
        "files of a folder appear together",
        "files.py",
        "            yield Path(stage)\n",
        "            yield folder\n",
        (f"{FILES}test_a_folder_of_files_is_written_together",),
    ),
    Safeguard(
        "files of a folder are on disk before they have their names",
        "files.py",
        "                sync(file)\n",
        "",
        (f"{FILES}test_a_file_is_on_disk_before_it_has_its_name",),
    ),
    Safeguard(
        "what the living write is not removed",
        "files.py",
        "return match is not None and not is_alive(int(match[1]))",
        "return match is not None",
        (f"{FILES}test_what_dead_processes_left_is_removed",),
    ),
    Safeguard(
        "what the dead left is removed",
        "files.py",
        "return match is not None and not is_alive(int(match[1]))",
        "return False",
        (f"{FILES}test_what_dead_processes_left_is_removed",),
    ),
    Safeguard(
        "lines of results take their place when they are finished",
        "files.py",
        'partial = Path(f"{path.resolve()}.partial-{os.getpid()}") if replaced else path',
        "partial = path",
        (f"{PREDICTOR}test_a_stopped_command_leaves_the_old_file_and_its_own_lines",),
    ),
    Safeguard(
        "lines of results are whole",
        "files.py",
        'encoding="utf-8", buffering=1) as file:',
        'encoding="utf-8") as file:',
        (f"{PREDICTOR}test_results_are_shown_and_written_as_they_are_made",),
    ),
    Safeguard(
        "a disk that is full is named",
        "files.py",
        "        error.filename = os.fspath(path)\n",
        "        pass\n",
        (f"{FILES}test_a_write_to_a_full_disk_names_the_file",),
    ),
    Safeguard(
        "a saved model is whole",
        "model/classifier.py",
        "        with atomic_folder(folder) as stage:\n            super().save_pretrained(stage)",
        "        folder.mkdir(parents=True, exist_ok=True)\n"
        "        for stage in [folder]:\n            super().save_pretrained(stage)",
        (f"{CLASSIFIER}test_a_failed_save_leaves_the_old_model",),
    ),
    Safeguard(
        "a saved config is JSON",
        "files.py",
        "            allow_nan=False,\n",
        "            allow_nan=True,\n",
        (f"{CLASSIFIER}test_metrics_that_are_no_numbers_are_not_written",),
    ),
    Safeguard(
        "checkpoints are written atomically",
        "training/checkpoints.py",
        'with atomic_file(path) as partial, partial.open("wb") as file:',
        'with open(path, "wb") as file:',
        (f"{CHECKPOINTS}test_checkpoints_appear_whole",),
    ),
]

TRAINING = [
    Safeguard(
        "weights of a checkpoint are finite, whoever writes it",
        "training/checkpoints.py",
        "        check_state_finite(checkpoint, path)\n",
        "",
        (f"{CHECKPOINTS}test_weights_that_are_not_finite_are_never_written",),
    ),
    Safeguard(
        "weights of a checkpoint are finite on all ranks",
        "training/resume.py",
        "        check_checkpoint_finite(trainer, checkpoint)\n",
        "",
        ("tests/training/test_task.py::test_weights_that_are_not_finite_stop_the_training",),
    ),
    Safeguard(
        "averaged weights are checked too",
        "training/finite.py",
        'WEIGHTS = ("state_dict", "current_model_state")',
        'WEIGHTS = ("state_dict",)',
        (f"{CHECKPOINTS}test_weights_that_are_not_finite_are_never_written",),
    ),
    Safeguard(
        "a loss is finite",
        "training/task.py",
        "        check_loss_finite(self, loss.detach(), index)\n",
        "",
        ("tests/training/test_task.py::test_a_loss_that_is_no_number_stops_at_once",),
    ),
    Safeguard(
        "a measured model is finite",
        "training/finite.py",
        "    if not is_bad.any():\n        return\n    bad = predictions",
        "    if True:\n        return\n    bad = predictions",
        ("tests/training/test_finite.py::test_predictions_that_are_not_finite_are_named",),
    ),
    Safeguard(
        "logits of -inf are no probabilities",
        "model/classifier.py",
        "scores = [nan_if_not_finite(classify(view)) for view in views]",
        "scores = [classify(view) for view in views]",
        (f"{CLASSIFIER}test_a_clip_with_a_logit_that_is_not_finite_has_no_probabilities",),
    ),
    Safeguard(
        "a prediction is finite",
        "inference/predictor.py",
        "if not probabilities.isfinite().all():",
        "if False:",
        (f"{PREDICTOR}test_whatever_is_wrong_with_a_video_the_next_one_follows",),
    ),
    Safeguard(
        "the next video follows one that fails",
        "inference/predictor.py",
        "except Exception as error:  # memory",
        "except VideoError as error:  # memory",
        (f"{PREDICTOR}test_whatever_is_wrong_with_a_video_the_next_one_follows",),
    ),
    Safeguard(
        "an explained clip has finite logits",
        "explain/clip_explanation.py",
        "if not logits.isfinite().all():",
        "if False:",
        (
            "tests/explain/test_command.py::"
            "test_a_clip_with_logits_that_are_not_finite_is_refused_by_name",
        ),
    ),
    Safeguard(
        "a result of a sweep is a number",
        "sweep/store.py",
        "if isinstance(value, float) and math.isnan(value):",
        "if False:",
        (f"{STORE}test_a_result_that_is_no_number_is_an_error",),
    ),
    Safeguard(
        "weights that are tested are never random",
        "training/checkpoint_choice.py",
        '    raise DataError(\n        "weights to evaluate are missing',
        '    return ""\n    raise DataError(\n        "weights to evaluate are missing',
        (f"{FOLDER}test_the_checkpoint_of_a_test",),
    ),
    Safeguard(
        "a resumed training has its optimizer's options",
        "training/compatibility.py",
        "                if has != needs:\n                    raise DataError(_difference",
        "                if False:\n                    raise DataError(_difference",
        (f"{COMPATIBILITY}test_an_optimizer_with_other_options_is_refused",),
    ),
    Safeguard(
        "a checkpoint has the shapes of the model",
        "training/compatibility.py",
        "has != needs:\n            raise",
        "False:\n            raise",
        (f"{CHECKPOINTS}test_a_checkpoint_must_fit_the_task",),
    ),
    Safeguard(
        "a checkpoint has the head of the model",
        "training/compatibility.py",
        "if isinstance(head, TAGHead) and isinstance(saved, dict):",
        "if False:",
        (f"{COMPATIBILITY}test_a_checkpoint_of_another_head_is_refused",),
    ),
    Safeguard(
        "a checkpoint has the classes of the data",
        "training/task.py",
        "if saved is not None and saved != self.model.class_names:",
        "if False:",
        ("tests/training/test_task.py::test_a_checkpoint_of_other_classes_is_refused",),
    ),
    Safeguard(
        "each training claims a folder of its own",
        "training/run_folder.py",
        '(Path(root) / f"version_{version}").mkdir()',
        '(Path(root) / f"version_{version}").mkdir(exist_ok=True)',
        (f"{FOLDER}test_a_folder_that_appears_meanwhile_is_not_shared",),
    ),
    Safeguard(
        "a run's folder is locked",
        "training/run_folder.py",
        "        lock.acquire(timeout=LOCK_TIMEOUT_SEC)\n",
        "        pass\n",
        (f"{FOLDER}test_a_locked_run_is_refused_by_name",),
    ),
    Safeguard(
        "a training locks its folder, and ends with 143 after SIGTERM",
        "training/lightning_cli.py",
        "raise SystemExit(128 + signal.SIGTERM) from None",
        "raise SystemExit(0) from None",
        (f"{CLI}test_a_training_locks_its_folder",),
    ),
    Safeguard(
        "a checkpoint is written after SIGTERM",
        "training/checkpoints.py",
        "        is_due = is_due or trainer.received_sigterm\n",
        "",
        (
            "tests/integration/scaling/test_resume.py::"
            "test_a_terminated_training_has_a_checkpoint_to_go_on_from[5-train]",
        ),
    ),
    Safeguard(
        "the row that is logged after a checkpoint is in it",
        "training/resume.py",
        "        checkpoint[UNLOGGED] = unlogged_row(trainer)\n",
        "",
        ("tests/training/test_metrics_table.py::test_no_row_is_lost_and_none_is_there_twice",),
    ),
    Safeguard(
        "a shard of another cache is not overwritten where the manifest is gone",
        "features/writer.py",
        "isinstance(error, OtherCacheError)",
        "False",
        (f"{WRITING}test_a_torn_manifest_is_deleted_and_whole_shards_are_kept",),
    ),
    Safeguard(
        "the last run goes by its number",
        "training/run_folder.py",
        "    highest = max(map(_version, runs))\n",
        "    highest = min(map(_version, runs))\n",
        (f"{FOLDER}test_last_goes_by_the_run_and_its_steps_not_by_file_times",),
    ),
    Safeguard(
        "the last checkpoint goes by its steps",
        "training/run_folder.py",
        "max(files, key=num_steps)\n",
        "max(files, key=lambda file: file.stat().st_mtime)\n",
        (f"{FOLDER}test_last_goes_by_the_run_and_its_steps_not_by_file_times",),
    ),
    Safeguard(
        "Top-1 has Wilson's interval",
        "metrics.py",
        "    low = 0.0 if hits == 0 else center - half\n",
        "    half = z * math.sqrt(hits * (num_clips - hits) / num_clips) / num_clips\n"
        "    low = 0.0 if hits == 0 else center - half\n",
        (f"{METRICS}test_wilson_against_known_intervals",),
    ),
    Safeguard(
        "a class that is always right leaves a doubt",
        "metrics.py",
        "    rate = (hits + z**2 / 2) / (num_clips + z**2)\n    shape",
        "    rate = hits / num_clips\n    shape",
        (f"{METRICS}test_clips_that_are_all_right_leave_a_doubt",),
    ),
    Safeguard(
        "too few clips have no interval",
        "metrics.py",
        "if num_clips.sum() < MIN_CLIPS:",
        "if num_clips.sum() < 1:",
        (f"{METRICS}test_clips_that_are_all_right_leave_a_doubt",),
    ),
    Safeguard(
        "a clip counts once",
        "metrics.py",
        "clip_index, first = np.unique(clip_index, return_index=True)",
        "first = np.arange(len(clip_index))",
        (f"{METRICS}test_predictions_are_collected_over_batches_each_clip_once",),
    ),
    Safeguard(
        "a class that is only predicted does not count",
        "metrics.py",
        "has_clips = ~np.isnan(accuracy)",
        "has_clips = np.isfinite(np.nan_to_num(accuracy))",
        (f"{METRICS}test_mca_is_the_mean_over_the_classes_present",),
    ),
    Safeguard(
        "a run of a sweep is done once",
        "sweep/store.py",
        'return run is None or any(other.user_attrs["run"] == run for other in older)',
        "return run is None",
        (f"{STORE}test_a_run_that_two_machines_queued_is_done_once",),
    ),
    Safeguard(
        "a run that kills its process is given up",
        "sweep/store.py",
        "if deaths < MAX_DEATHS:",
        "if True:",
        (f"{STORE}test_a_run_that_kills_its_process_again_and_again_is_failed",),
    ),
]

SAFEGUARDS = (*CODE, *VIDEO, *DATA, *WRITES, *TRAINING)
