// Whether a model is what it was: the objects in its dictionaries, and the versions of its tensors.
#include <vector>

#include "bindings/define.h"

namespace nodebits {
namespace {

// Holds what it compares with: an object that came in place of one that died could have its
// address.
class Guard {
 public:
  Guard(const nb::list& dictionaries, const nb::list& tensors)
      : version_(nb::steal<nb::object>(PyUnicode_InternFromString("_version"))) {
    for (const nb::handle d : dictionaries) {
      Kept kept{nb::cast<nb::dict>(d), {}};
      PyObject *key, *value;
      Py_ssize_t at = 0;
      while (PyDict_Next(kept.dictionary.ptr(), &at, &key, &value))
        kept.items.emplace_back(nb::borrow(key), nb::borrow(value));
      kept_.push_back(std::move(kept));
    }
    for (const nb::handle t : tensors) {
      tensors_.push_back(nb::borrow(t));
      versions_.push_back(version_of(t));
    }
  }

  bool same() const {
    for (const Kept& kept : kept_) {
      if (PyDict_GET_SIZE(kept.dictionary.ptr()) != static_cast<Py_ssize_t>(kept.items.size()))
        return false;
      PyObject *key, *value;
      Py_ssize_t at = 0;
      size_t i = 0;
      while (PyDict_Next(kept.dictionary.ptr(), &at, &key, &value)) {
        if (key != kept.items[i].first.ptr() || value != kept.items[i].second.ptr()) return false;
        ++i;
      }
    }
    for (size_t i = 0; i < tensors_.size(); ++i)
      if (version_of(tensors_[i]) != versions_[i]) return false;
    return true;
  }

 private:
  struct Kept {
    nb::dict dictionary;
    std::vector<std::pair<nb::object, nb::object>> items;
  };

  int64_t version_of(nb::handle t) const {
    const nb::object version = nb::steal(PyObject_GetAttr(t.ptr(), version_.ptr()));
    if (!version.is_valid()) throw nb::python_error();
    return nb::cast<int64_t>(version);
  }

  nb::object version_;
  std::vector<Kept> kept_;
  std::vector<nb::object> tensors_;
  std::vector<int64_t> versions_;
};

}  // namespace

void define_guard(nb::module_& m) {
  nb::class_<Guard>(m, "Guard")
      .def(nb::init<const nb::list&, const nb::list&>())
      .def("same", &Guard::same);
}

}  // namespace nodebits
