"""Where the flow of clips stands under a root, what decided it, and what is missing of it."""
from pathlib import Path

from engine.errors import UserError
from engine.files import read_json
from engine.variants import FLOW_DECIDES, FLOW_SETTINGS, clips_folder, flow_path, place


def flow_made_with(root, split=1):
    """What decided the flow under a root (dict of FLOW_DECIDES), from its flow.json."""
    path = Path(root) / clips_folder('flow') / FLOW_SETTINGS
    made_with = read_json(path)
    if made_with is None:
        raise UserError(f'{path}: not there; made by: {flow_maker(root, split)}')
    return {key: made_with.get(key) for key in FLOW_DECIDES}


def flow_maker(root, split=1):
    """The command that makes the flow under a root, or goes on with what is there."""
    made_with = read_json(Path(root) / clips_folder('flow') / FLOW_SETTINGS) or {}
    flags = {key: made_with.get(key, usual) for key, usual in FLOW_DECIDES.items()}
    words = [f' --{key} {"x".join(map(str, value)) if key == "size" else value}'
             for key, value in flags.items() if value != FLOW_DECIDES[key]]
    return f'./saveFeatures.sh --stage opticalFlow --local{"".join(words)}{place(root, split)}'


def waiting_for_flow(root, clips, given_up):
    """Those of the clips whose flow is not there, and that opticalFlow.py has not given up.

    Args:
        given_up: names of such clips, cluster.parts.failed_clips of the flow's folder.
    """
    return [clip for clip in clips
            if clip.name not in given_up and not flow_path(root, clip).exists()]


def check_flow(root, clips, split, given_up, finished=lambda clip: False):
    """Refuses to begin while clips wait for their flow: a stage would leave out each of them.

    Those that opticalFlow.py could not do are not waited for, nor those that are `finished`.
    """
    missing = [clip for clip in waiting_for_flow(root, clips, given_up) if not finished(clip)]
    if missing:
        raise UserError(f'{Path(root) / clips_folder("flow")}: {len(missing)} of {len(clips)} '
                        f'clips have no flow, {missing[0].name} first; made by: '
                        f'{flow_maker(root, split)} (or without --local, as batch jobs)')
