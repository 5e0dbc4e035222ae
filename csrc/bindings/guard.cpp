// Whether a model is what it was: the objects in its dictionaries, lists and sets, and its tensors.
#include <cstring>
#include <vector>

#include "bindings/define.h"

namespace nodebits {
namespace {

// Holds what it compares with: an object that came in place of one that died could have its
// address.
class Guard {
 public:
  // Of a tensor: itself, whether torch counts its changes, and of how many bytes a copy is kept; -1
  // for one without an address.
  Guard(const nb::list& dictionaries, const nb::list& lists, const nb::list& sets,
        const nb::list& tensors)
      : version_(nb::steal<nb::object>(PyUnicode_InternFromString("_version"))),
        data_ptr_(nb::steal<nb::object>(PyUnicode_InternFromString("data_ptr"))) {
    for (const nb::handle d : dictionaries) {
      Dictionary kept{nb::cast<nb::dict>(d), {}};
      PyObject *key, *value;
      Py_ssize_t at = 0;
      while (PyDict_Next(kept.dictionary.ptr(), &at, &key, &value))
        kept.items.emplace_back(nb::borrow(key), nb::borrow(value));
      dictionaries_.push_back(std::move(kept));
    }
    for (const nb::handle l : lists) {
      List kept{nb::cast<nb::list>(l), {}};
      for (const nb::handle item : kept.list) kept.items.push_back(nb::borrow(item));
      lists_.push_back(std::move(kept));
    }
    for (const nb::handle s : sets) {
      nb::object copy = nb::steal(PySet_New(s.ptr()));
      if (!copy.is_valid()) throw nb::python_error();
      sets_.emplace_back(nb::borrow(s), std::move(copy));
    }
    for (const nb::handle given : tensors) {
      const auto [object, counted, bytes] = nb::cast<std::tuple<nb::object, bool, int64_t>>(given);
      Kept kept{object,
                counted ? version_of(object) : -1,
                bytes < 0 ? 0 : address_of(object),
                bytes >= 0,
                {}};
      const char* first = reinterpret_cast<const char*>(kept.address);
      if (bytes > 0) kept.content.assign(first, first + bytes);
      tensors_.push_back(std::move(kept));
    }
  }

  // Values that others stand in place of, and those: pairs. None where anything else is another.
  nb::object replaced() const {
    nb::list found;
    for (const Dictionary& kept : dictionaries_) {
      if (PyDict_GET_SIZE(kept.dictionary.ptr()) != static_cast<Py_ssize_t>(kept.items.size()))
        return nb::none();
      PyObject *key, *value;
      Py_ssize_t at = 0;
      size_t i = 0;
      while (PyDict_Next(kept.dictionary.ptr(), &at, &key, &value)) {
        const auto& [known, before] = kept.items[i++];
        if (key != known.ptr()) return nb::none();
        if (value != before.ptr()) found.append(nb::make_tuple(before, nb::borrow(value)));
      }
    }
    return same_lists() && same_sets() && same_tensors() ? nb::object(found) : nb::none();
  }

  bool same() const {
    for (const Dictionary& kept : dictionaries_) {
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
    return same_lists() && same_sets() && same_tensors();
  }

 private:
  bool same_lists() const {
    for (const List& kept : lists_) {
      if (PyList_GET_SIZE(kept.list.ptr()) != static_cast<Py_ssize_t>(kept.items.size()))
        return false;
      for (size_t i = 0; i < kept.items.size(); ++i)
        if (PyList_GET_ITEM(kept.list.ptr(), static_cast<Py_ssize_t>(i)) != kept.items[i].ptr())
          return false;
    }
    return true;
  }

  bool same_sets() const {
    for (const auto& [set, copy] : sets_) {
      const int equal = PyObject_RichCompareBool(set.ptr(), copy.ptr(), Py_EQ);
      if (equal < 0) throw nb::python_error();
      if (equal == 0) return false;
    }
    return true;
  }

  bool same_tensors() const {
    for (const Kept& kept : tensors_) {
      if (kept.version >= 0 && version_of(kept.tensor) != kept.version) return false;
      // The memory of the copy's original may be gone where the tensor has another one.
      if (kept.has_address && address_of(kept.tensor) != kept.address) return false;
      const void* now = reinterpret_cast<const void*>(kept.address);
      if (!kept.content.empty() && std::memcmp(now, kept.content.data(), kept.content.size()) != 0)
        return false;
    }
    return true;
  }

  struct Dictionary {
    nb::dict dictionary;
    std::vector<std::pair<nb::object, nb::object>> items;
  };
  struct List {
    nb::list list;
    std::vector<nb::object> items;
  };
  struct Kept {
    nb::object tensor;
    int64_t version;
    uintptr_t address;
    bool has_address;
    std::vector<char> content;
  };

  int64_t version_of(nb::handle t) const {
    const nb::object version = nb::steal(PyObject_GetAttr(t.ptr(), version_.ptr()));
    if (!version.is_valid()) throw nb::python_error();
    return nb::cast<int64_t>(version);
  }

  uintptr_t address_of(nb::handle t) const {
    const nb::object made = nb::steal(PyObject_CallMethodNoArgs(t.ptr(), data_ptr_.ptr()));
    if (!made.is_valid()) throw nb::python_error();
    return nb::cast<uintptr_t>(made);
  }

  nb::object version_, data_ptr_;
  std::vector<Dictionary> dictionaries_;
  std::vector<List> lists_;
  std::vector<std::pair<nb::object, nb::object>> sets_;
  std::vector<Kept> tensors_;
};

}  // namespace

void define_guard(nb::module_& m) {
  nb::class_<Guard>(m, "Guard")
      .def(nb::init<const nb::list&, const nb::list&, const nb::list&, const nb::list&>())
      .def("replaced", &Guard::replaced)
      .def("same", &Guard::same);
}

}  // namespace nodebits
