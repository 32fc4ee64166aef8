"""A node made from nothing, and one taken over: what is reused and what is not."""

import os
import socket
from pathlib import Path

import pytest

from gateway.nodestate import NODE, NodeState
from gateway.process.node import Node, adopt_node, open_node
from gateway.process.settings import ServeSettings, StartError
from gateway.process.sockets import port_of
from gateway.process.upgrade import HandedWorker, Handover
from gateway.segment import Section, Segment

EXTRA = Section("extra", version=1, words_per_slot=5)


def settings(path: Path, *sections: Section, workers: int = 2, port: int = 0) -> ServeSettings:
    return ServeSettings(
        config=path / "c", state_dir=path, port=port, admin_port=0, workers=workers, sections=(NODE, *sections)
    )


def handed_over(node: Node, *workers: HandedWorker) -> Handover:
    """What the next build would be told, with descriptors of its own."""
    return Handover(
        pid=os.getpid(),
        segment_fd=os.dup(node.segment.fd),
        data_fds=[os.dup(listener.fileno()) for listener in node.listening.data],
        data_open=node.listening.open,
        admin_fd=os.dup(node.listening.admin.fileno()),
        lock_fd=os.dup(node.lock.fd),
        lock_path=str(node.lock.path),
        generation=1,
        workers=list(workers),
    )


def test_a_new_node_has_room_for_two_generations(tmp_path: Path) -> None:
    node = open_node(settings(tmp_path), [])
    assert (node.room, node.segment.slots) == (8, 18)
    assert node.state.boot_id > 0
    assert (node.state.boot_ns > 0, node.state.upgrades, node.previous) == (True, 0, None)
    node.close()
    assert list(tmp_path.iterdir()) == []


def test_when_a_port_is_not_to_be_had_the_state_dir_is_free_again(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other, pytest.raises(StartError):
        open_node(settings(tmp_path, port=port_of(other)), [])
    assert list(tmp_path.iterdir()) == []


def test_the_same_layout_is_used_on(tmp_path: Path) -> None:
    node = open_node(settings(tmp_path, EXTRA), [])
    node.state.count_death(5, 1)
    node.state.count_death(5, 1)
    taken = adopt_node(settings(tmp_path, EXTRA), handed_over(node, HandedWorker(1, 0, 0, 0)))
    assert taken.previous is None
    assert taken.state.boot_id == node.state.boot_id
    assert node.state.upgrades == 1
    assert not taken.state.is_refused(5, 2)
    assert port_of(taken.listening.data[0]) == port_of(node.listening.data[0])
    assert taken.listening.open == 2
    taken.listening.close()
    os.close(taken.lock.fd)
    node.close()


@pytest.mark.parametrize(
    ("sections", "workers", "running"),
    [
        ([], 2, 2),  # dropped: the layout is smaller, but every section asked for is there
        ([Section("extra", version=2, words_per_slot=5)], 2, 2),
        ([EXTRA, Section("new", version=1)], 2, 2),
        ([EXTRA], 12, 2),
        ([EXTRA], 2, 15),
    ],
)
def test_another_layout_or_no_room_gets_a_new_segment(
    tmp_path: Path, sections: list[Section], workers: int, running: int
) -> None:
    node = open_node(settings(tmp_path, EXTRA), [])
    old_workers = [HandedWorker(slot, slot, slot, 0) for slot in range(running)]
    taken = adopt_node(settings(tmp_path, *sections, workers=workers), handed_over(node, *old_workers))
    if sections:
        assert taken.previous is not None
        assert taken.previous.boot_id == node.state.boot_id != taken.state.boot_id
        assert (taken.state.boot_ns, taken.state.upgrades) == (node.state.boot_ns, 1)
        assert taken.room == max(workers, 8)
    else:
        assert taken.previous is None
    taken.listening.close()
    os.close(taken.lock.fd)
    node.close()


def test_a_changed_address_stays_and_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    node = open_node(settings(tmp_path), [])
    port = port_of(node.listening.data[0])
    taken = adopt_node(settings(tmp_path, port=1), handed_over(node))
    assert f"listen.port stays {port}: a changed address needs a restart" in caplog.text
    taken.listening.close()
    os.close(taken.lock.fd)
    node.close()


def test_memory_this_build_cannot_read_is_refused(tmp_path: Path) -> None:
    node = open_node(settings(tmp_path), [])
    handover = handed_over(node)
    other = Segment.create([EXTRA], 4)
    os.dup2(other.fd, handover.segment_fd)
    with pytest.raises(StartError, match="no upgrade in place from that build"):
        adopt_node(settings(tmp_path), handover)
    for fd in handover.descriptors():
        os.close(fd)
    node.close()


def test_the_state_is_that_of_the_segment(tmp_path: Path) -> None:
    node = open_node(settings(tmp_path), [])
    node.state.generation = 9
    assert NodeState(node.segment).generation == 9
    node.close()
