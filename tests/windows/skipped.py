"""What is not run on Windows, and why. tests/conftest.py reads it; tests/windows/test_skipped.py keeps it true.

No fault of the package stands here. A test that the system itself makes impossible stands here with the reason; where
a mark in its file says that already (no fork, no users with numbers), it is not listed a second time.
"""

from __future__ import annotations

from typing import Final

SHARE: Final = 0.05
"""Of all the tests, no more may be skipped there."""

MODULES: Final[dict[str, str]] = {}
"""By the path of the file, with slashes."""

PINNED: Final = "Windows lets nobody rename, replace or remove a file that SQLite has open: see test_open_files.py"

TESTS: Final[dict[str, str]] = {
    **dict.fromkeys(
        (
            "tests/files/test_system.py::test_a_path_that_is_too_long_for_other_programs_is_used",
            "tests/files/test_replace.py::test_a_name_of_the_greatest_length_is_no_reason_to_fail",
        ),
        "wine itself fails to resolve a path of more than 260 characters (error 234)",
    ),
    **dict.fromkeys(
        (
            "tests/files/test_replace.py::test_a_temporary_file_that_somebody_removed_takes_nobodys_place",
            "tests/files/test_replace.py::test_a_maker_whose_file_was_taken_for_an_orphan_before_it_was_locked_makes_another",
        ),
        "wine gives a removed file back to who makes its name anew while it is open; Windows 10 does not",
    ),
    **dict.fromkeys(
        (
            "tests/commit/test_dirty_flag.py::test_a_wal_that_is_unlinked_is_noticed_at_the_next_commit_and_nothing_is_lost",
            "tests/commit/test_dirty_flag.py::test_a_wal_that_is_unlinked_and_replaced_is_noticed_too",
            "tests/commit/test_dirty_flag.py::test_a_staged_record_notices_it_as_a_commit_does",
            "tests/commit/test_dirty_flag.py::test_a_wal_that_is_unlinked_before_close_costs_nothing",
            "tests/commit/test_dirty_flag.py::test_nobody_else_opens_a_store_whose_wal_was_unlinked_under_its_users",
            "tests/commit/test_dirty_flag.py::test_a_commit_that_cannot_be_saved_from_an_unlinked_wal_is_in_doubt",
            "tests/examples/test_web_service.py::test_a_handle_that_is_of_no_use_ends_its_worker",
            "tests/importing/test_sources.py::test_an_sqlite_file_that_vanishes_or_is_asked_for_meanwhile_is_read_to_its_end",
            "tests/store/test_opening.py::test_a_file_that_lost_its_name_under_a_rollback_journal_is_said_to_have",
            "tests/maintenance/test_backup.py::test_one_who_goes_on_with_the_file_that_was_replaced_is_refused_instead_of_committing_to_nowhere",
            "tests/sqlite/test_events.py::test_a_handle_that_refuses_further_work_says_so_once",
            "tests/sqlite/test_main_file.py::test_the_next_write_says_that_the_file_is_gone",
            "tests/sqlite/test_main_file.py::test_what_was_acknowledged_is_in_the_file_wherever_it_is",
            "tests/sqlite/test_main_file.py::test_close_says_so_if_nobody_was_told",
            "tests/sqlite/test_main_file.py::test_a_transaction_under_way_is_not_acknowledged",
            "tests/sqlite/test_main_file.py::test_a_draft_of_before_is_not_committed",
            "tests/sqlite/test_main_file.py::test_the_new_file_is_left_alone",
            "tests/sqlite/test_main_file.py::test_a_file_that_comes_back_is_the_same_file",
            "tests/sqlite/test_main_file.py::test_tasks_are_told",
            "tests/sqlite/test_main_file.py::test_closing_a_store_of_tasks_says_so_if_nobody_was_told",
        ),
        PINNED,
    ),
    **dict.fromkeys(
        (
            "tests/crash/test_campaign.py::test_each_campaign_takes_a_case_back",
            "tests/recovery/test_sqlite_wal.py::test_sectors_of_a_hot_wal_are_not_lost_in_silence",
            "tests/test_upgrade.py::test_a_death_at_any_step_of_the_first_opening_leaves_it_to_the_next",
            "tests/store/test_processes.py::test_a_death_at_any_write_of_a_stores_life_leaves_a_sound_store",
            "tests/store/test_processes.py::test_a_store_of_before_a_fork_refuses_every_method_in_the_child",
            "tests/store/test_processes.py::test_a_transaction_of_before_a_fork_is_the_parents_alone",
            "tests/store/test_processes.py::test_a_fork_beside_a_transaction_neither_waits_for_it_nor_ends_it",
            "tests/store/test_processes.py::test_the_end_of_a_forked_child_takes_nothing_from_the_parent",
            "tests/store/test_processes.py::test_a_forked_child_that_outlives_its_parent_takes_no_commit_with_it",
            "tests/store/test_index_history.py::test_a_death_at_any_step_leaves_all_of_it_or_nothing",
            "tests/store/test_staged.py::test_the_end_of_a_forked_child_does_not_end_the_session_of_its_parent",
            "tests/store/test_staged.py::test_a_forked_child_that_outlives_its_parent_does_not_keep_the_session_alive",
            "tests/recovery/test_recover.py::test_a_kill_while_the_store_is_closed_loses_nothing",
            "tests/recovery/test_recover.py::test_a_crash_at_any_step_of_recovery_ends_in_the_same_state_and_nothing_is_done_twice",
        ),
        "needs a fork: its processes go on from where another one is",
    ),
    "tests/store/test_opening.py::test_a_new_store_and_what_lies_beside_it_are_the_owners_alone": (
        "Windows has no umask: a folder gives its rights to what is made in it"
    ),
    "tests/proof/test_signing.py::test_signing_warns_of_a_key_that_others_can_read": (
        "Windows has no modes that say who may read a file"
    ),
    "tests/sqlite/test_frozen.py::test_a_store_that_is_open_is_read_by_a_user_who_may_not_write_it": (
        "needs a second user, whom the test can become"
    ),
    **dict.fromkeys(
        (
            "tests/cli/test_words.py::test_a_relative_path_in_a_folder_that_was_removed_is_refused_plainly",
            "tests/cli/test_words.py::test_the_program_in_a_folder_that_was_removed",
        ),
        "Windows lets nobody remove the folder that a program works in",
    ),
    **dict.fromkeys(
        (
            "tests/cli/test_words.py::test_too_few_descriptors_are_said_and_not_blamed_on_permissions",
            "tests/cli/test_words.py::test_an_open_store_outlives_too_few_descriptors",
            "tests/cli/test_program.py::test_a_file_that_cannot_grow_leaves_store_and_target_as_they_were",
        ),
        "Windows has no limits of open files and of their sizes that a program could set for itself",
    ),
    **dict.fromkeys(
        (
            "tests/cli/test_program.py::test_a_closed_standard_output_is_an_error",
            "tests/test_docs.py::test_the_examples_of_a_page_print_what_it_shows",
            "tests/test_docs.py::test_a_right_page_passes_with_its_variables_kept_from_block_to_block",
            "tests/test_docs.py::test_a_wrong_page_is_found_out",
            "tests/test_docs.py::test_a_page_that_cannot_be_read_is_found_out",
        ),
        "needs a POSIX shell, as the pages' commands do",
    ),
    **dict.fromkeys(
        (
            "tests/test_bench.py::test_only_runs_what_it_names",
            "tests/test_bench.py::test_scales",
            "tests/test_bench.py::test_baseline_does_what_the_protocol_says",
            "tests/test_bench.py::test_the_custom_wal_recovers_from_a_kill_at_each_of_its_steps",
        ),
        "what the benchmarks compare with is written for Linux (os.pwrite); it is no part of the package",
    ),
    **dict.fromkeys(
        (
            "tests/files/test_replace.py::test_a_folder_that_cannot_be_synced_is_said_with_what_it_means",
            "tests/maintenance/test_backup.py::test_a_restore_whose_name_is_not_durable_says_so",
        ),
        "Windows syncs no folders: the call that gives a file its name makes it durable",
    ),
    "tests/maintenance/test_compact.py::test_ctrl_c_ends_it_while_sqlite_is_at_work": (
        "needs signal.pthread_kill, which interrupts what a thread is doing; Windows has none"
    ),
    **dict.fromkeys(
        (
            "tests/cli/test_program.py::test_an_interrupted_import_keeps_nothing_of_its_transaction",
            "tests/cli/test_program.py::test_an_interrupted_import_in_batches_keeps_those_before",
        ),
        "Ctrl-C comes from a console there, and these programs have pipes alone",
    ),
}
"""By the path of the file and the name of the function, as `tests/files/test_replace.py::test_name`."""


def reason(test: str) -> str:
    """Return why the test of this node id cannot run on Windows; nothing if it can."""
    module, _, rest = test.partition("::")
    return MODULES.get(module, "") or TESTS.get(f"{module}::{rest.partition('[')[0]}", "")
