"""What a hugepage pool can still give."""

from __future__ import annotations

from nvlane.facts.shape import Facts


def free_pages(facts: Facts, node: int, page_size: int) -> int:
    """Pages of one size that a node has free and nobody was promised.

    The kernel counts promised pages (resv_hugepages) for the whole host: each node is taken to owe all of them.
    """
    free = sum(pool.free for pool in facts.hugepages if (pool.node, pool.page_size) == (node, page_size))
    return max(0, free - facts.hugepages_reserved.get(page_size, 0))
