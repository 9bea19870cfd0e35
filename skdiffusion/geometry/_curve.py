r"""One curve out of points on it: their order, and arc length.

The minimum spanning tree of points on a curve runs along it; its longest path, found by two
searches from end to end, is their order. A closed curve is cut where its points are
farthest apart.
"""

from __future__ import annotations

import numpy as np
from scipy.sparse.csgraph import connected_components, dijkstra, minimum_spanning_tree
from sklearn.neighbors import NearestNeighbors, kneighbors_graph

from skdiffusion.utils.rows import middle_of

__all__ = ["RidgeCurve"]

CELL = 0.1
"""Edge of the cells, in noise levels, of which each keeps one point."""
TOUCHING = 3.0
"""Noise levels between neighbours on one curve, at most."""
NEIGHBOURS = 12


class RidgeCurve:
    """A curve as a polyline.

    Parameters
    ----------
    points : ndarray of shape (n, D)
        Points on the curve, in any order.
    level : float
        Noise level of the ridge: details much finer than that do not exist.

    Raises
    ------
    ValueError
        If the points lie on several curves or on one with branches.

    Attributes
    ----------
    middle : ndarray of shape (D,)
    vertices : ndarray of shape (m, D)
        In order, from there.
    arc : ndarray of shape (m,)
        Arc length up to each vertex.
    """

    def __init__(self, points: np.ndarray, level: float):
        if len(points) < 2:
            raise ValueError("no curve: fewer than two rows could be projected on the ridge.")
        self.middle = middle_of(points)
        points = points - self.middle
        cells = np.round(points / (CELL * level)).astype(np.int64)
        points = points[np.sort(np.unique(cells, axis=0, return_index=True)[1])]
        graph = kneighbors_graph(
            points, min(NEIGHBOURS, len(points) - 1), mode="distance", include_self=False
        )
        graph.data[graph.data > TOUCHING * level] = 0
        graph.eliminate_zeros()
        n_pieces, piece = connected_components(graph, directed=False)
        if n_pieces > 1:
            sizes = np.sort(np.bincount(piece))[::-1]
            raise ValueError(
                f"arc length needs one curve; the ridge has {n_pieces} pieces, of "
                f"{', '.join(map(str, sizes[:5]))} points: a larger bandwidth joins them."
            )
        tree = minimum_spanning_tree(graph)
        order = _longest_path(tree)
        self.vertices = points[order]
        steps = np.linalg.norm(np.diff(self.vertices, axis=0), axis=1)
        self.arc = np.concatenate([[0.0], np.cumsum(steps)])
        self._tree = NearestNeighbors(n_neighbors=1).fit(self.vertices)
        away = self._tree.kneighbors(points)[0].max()
        if away > level:
            raise ValueError(
                "arc length needs a curve without branches; points of this ridge lie up to "
                f"{away:.3g} from its longest path."
            )

    def position(self, points: np.ndarray) -> np.ndarray:
        """Arc length at the nearest place on the polyline, for each point."""
        points = points - self.middle
        nearest = self._tree.kneighbors(points)[1][:, 0]
        best, found = np.full(len(points), np.inf), np.zeros(len(points))
        for offset in (-1, 0):
            first = np.clip(nearest + offset, 0, len(self.vertices) - 2)
            start, step = self.vertices[first], self.vertices[first + 1] - self.vertices[first]
            length = np.linalg.norm(step, axis=1)
            share = np.einsum("nd,nd->n", points - start, step) / length**2
            share = np.clip(share, 0.0, 1.0)
            distance = np.linalg.norm(points - start - share[:, None] * step, axis=1)
            closer = distance < best
            best = np.where(closer, distance, best)
            found = np.where(closer, self.arc[first] + share * length, found)
        return found


def _longest_path(tree) -> np.ndarray:
    """Vertices of the longest path in a tree, from the end whose index is smaller."""
    start = int(np.argmax(dijkstra(tree, directed=False, indices=0)))
    distance, before = dijkstra(tree, directed=False, indices=start, return_predecessors=True)
    path = [int(np.argmax(distance))]
    while path[-1] != start:
        path.append(int(before[path[-1]]))
    return np.array(path if path[0] < path[-1] else path[::-1])
