"""What is measured on a network: its Jacobian, its tangent kernel, and how labels split between their large
and small directions. Every fast path has a slow obvious twin in `dense`."""

from labkit.measure.dense import dense_jacobian as dense_jacobian
from labkit.measure.dense import dense_ntk as dense_ntk
from labkit.measure.information import Split as Split
from labkit.measure.information import information_basis as information_basis
from labkit.measure.information import split as split
from labkit.measure.jacobian import Jacobian as Jacobian
from labkit.measure.jacobian import jacobian as jacobian
from labkit.measure.layout import from_class_major as from_class_major
from labkit.measure.layout import rows as rows
from labkit.measure.layout import to_class_major as to_class_major
from labkit.measure.layout import unrows as unrows
from labkit.measure.ntk import empirical_ntk as empirical_ntk
from labkit.measure.ntk import ntk_route as ntk_route
from labkit.measure.price import Price as Price
