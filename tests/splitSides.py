"""Who is on which side of a split, as the stages read it."""
import helperFunctions as hf


def sides(root, split=1):
    """{clip name: 'train' or 'test'} as the stages read it."""
    lists = hf.read_lists(root, split)
    return {clip.name: side for side in ('train', 'test') for clip in getattr(lists, side)}


def groups(root, split=1):
    """({groups that train}, {groups that are tested})."""
    lists = hf.read_lists(root, split)
    return [{clip.group for clip in part} for part in (lists.train, lists.test)]
