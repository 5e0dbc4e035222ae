// Plans: values go in as addresses and come out as DLPack capsules, since a DLPack exchange per
// tensor would take longer than the steps of a small graph.
#include "plan/plan.h"

#include <chrono>
#include <string_view>
#include <utility>

#include "bindings/define.h"

namespace nodebits {
namespace {

// The structures of DLPack (dlpack.h), version 0 capsules.
struct DlType {
  uint8_t code;
  uint8_t bits;
  uint16_t lanes;
};
struct DlTensor {
  void* data;
  int32_t device_type;
  int32_t device_id;
  int32_t ndim;
  DlType dtype;
  int64_t* shape;
  int64_t* strides;
  uint64_t byte_offset;
};
struct DlManaged {
  DlTensor tensor;
  void* context;
  void (*deleter)(DlManaged*);
};

struct Exported {
  DlManaged managed;
  int64_t shape[kMostDims];
  int64_t strides[kMostDims];
  std::shared_ptr<void> owner;
};

DlType dl_type(DType dtype) {
  constexpr DlType kTypes[] = {{2, 32, 1}, {2, 64, 1}, {1, 8, 1},
                               {0, 32, 1}, {0, 64, 1}, {6, 8, 1}};
  return kTypes[static_cast<size_t>(dtype)];
}

DType dtype_named(std::string_view name) {
  for (int i = 0; i <= static_cast<int>(DType::b8); ++i) {
    if (name == name_of(static_cast<DType>(i))) return static_cast<DType>(i);
  }
  throw ShapeError("dtype \"" + std::string(name) + "\" is none of a plan's");
}

nb::object exported(const Array& array) {
  auto* made = new Exported;
  int64_t stride = 1;
  for (int i = array.ndim - 1; i >= 0; --i) {
    made->shape[i] = array.shape[i];
    made->strides[i] = stride;
    stride *= std::max<int64_t>(array.shape[i], 1);
  }
  made->owner = array.owner;
  made->managed = {{const_cast<void*>(array.data), 1, 0, array.ndim, dl_type(array.dtype),
                    made->shape, made->strides, 0},
                   made,
                   [](DlManaged* m) { delete static_cast<Exported*>(m->context); }};
  PyObject* capsule = PyCapsule_New(&made->managed, "dltensor", [](PyObject* self) {
    if (!PyCapsule_IsValid(self, "dltensor")) return;  // somebody took the memory over
    auto* m = static_cast<DlManaged*>(PyCapsule_GetPointer(self, "dltensor"));
    m->deleter(m);
  });
  if (capsule == nullptr) {
    delete made;
    throw nb::python_error();
  }
  return nb::steal(capsule);
}

Array array_at(uint64_t address, std::string_view dtype, nb::handle shape) {
  Array made;
  made.dtype = dtype_named(dtype);
  made.data = reinterpret_cast<const void*>(static_cast<uintptr_t>(address));
  if (!PyTuple_Check(shape.ptr())) throw nb::type_error("a shape is a tuple");
  const Py_ssize_t n = PyTuple_GET_SIZE(shape.ptr());
  if (n > kMostDims) throw ShapeError("an array of more than 8 dimensions");
  made.ndim = static_cast<int>(n);
  for (Py_ssize_t i = 0; i < n; ++i) {
    made.shape[i] = PyLong_AsLongLong(PyTuple_GET_ITEM(shape.ptr(), i));
    if (made.shape[i] == -1 && PyErr_Occurred() != nullptr) throw nb::python_error();
  }
  return made;
}

std::string_view text_of(PyObject* object) {
  Py_ssize_t n = 0;
  const char* text = PyUnicode_AsUTF8AndSize(object, &n);
  if (text == nullptr) throw nb::python_error();
  return {text, static_cast<size_t>(n)};
}

// (value, address, dtype, shape)
std::pair<int, Array> given(PyObject* item) {
  if (!PyTuple_Check(item) || PyTuple_GET_SIZE(item) != 4)
    throw nb::type_error("a value is given as (number, address, dtype, shape)");
  const long value = PyLong_AsLong(PyTuple_GET_ITEM(item, 0));
  const unsigned long long address = PyLong_AsUnsignedLongLong(PyTuple_GET_ITEM(item, 1));
  if (PyErr_Occurred() != nullptr) throw nb::python_error();
  return {static_cast<int>(value), array_at(address, text_of(PyTuple_GET_ITEM(item, 2)),
                                            nb::handle(PyTuple_GET_ITEM(item, 3)))};
}

// Now and then Python looks whether it was interrupted, while the caller does without the GIL.
class Patience {
 public:
  void look() const {
    const Clock::time_point now = Clock::now();
    if (now - looked_ < std::chrono::milliseconds(50)) return;
    looked_ = now;
    nb::gil_scoped_acquire acquire;
    if (PyErr_CheckSignals() != 0) throw nb::python_error();
  }

 private:
  using Clock = std::chrono::steady_clock;
  mutable Clock::time_point looked_ = Clock::now();
};

void run_steps(Run& run, int first, int last, int threads) {
  nb::gil_scoped_release release;
  const Patience patience;
  const std::function<void()> look = [&] { patience.look(); };
  run.steps(first, last, threads, &look);
}

// A plan and its constants.
class PlanHandle {
 public:
  PlanHandle(std::string_view json, const nb::dict& constants)
      : plan_(Plan::read(json, [&](std::string_view name) {
          const nb::str key(name.data(), name.size());
          if (!constants.contains(key))
            throw PlanError("FileFormatError",
                            "the plan's constant \"" + std::string(name) + "\" is missing");
          return constant(nb::cast<In>(constants[key]), name);
        })) {}

  const std::shared_ptr<const Plan>& plan() const { return plan_; }

  nb::list run(const nb::handle& values, int threads, GraphStore* store) {
    const nb::object fast = nb::steal(PySequence_Fast(values.ptr(), "values are a sequence"));
    if (!fast.is_valid()) throw nb::python_error();
    Given all;
    all.reserve(static_cast<size_t>(PySequence_Fast_GET_SIZE(fast.ptr())));
    for (Py_ssize_t i = 0; i < PySequence_Fast_GET_SIZE(fast.ptr()); ++i)
      all.push_back(given(PySequence_Fast_GET_ITEM(fast.ptr(), i)));
    std::vector<Array> results;
    {
      nb::gil_scoped_release release;
      const Patience patience;
      results = run_parts(*plan_, all, threads, store, [&patience] { patience.look(); });
    }
    nb::list made;
    for (const Array& result : results) made.append(exported(result));
    return made;
  }

 private:
  // A constant in memory that Python keeps for as long as the plan wants it.
  static Array constant(const In& in, std::string_view name) {
    Array made;
    bool known = false;
    const std::pair<nb::dlpack::dtype, DType> kinds[] = {
        {nb::dtype<float>(), DType::f32},   {nb::dtype<double>(), DType::f64},
        {nb::dtype<uint8_t>(), DType::u8},  {nb::dtype<int32_t>(), DType::i32},
        {nb::dtype<int64_t>(), DType::i64}, {nb::dtype<bool>(), DType::b8}};
    for (const auto& [from, to] : kinds) {
      if (in.dtype() != from) continue;
      made.dtype = to;
      known = true;
    }
    int64_t stride = 1;
    bool whole = in.ndim() <= kMostDims;
    for (size_t i = in.ndim(); whole && i-- > 0;) {
      whole = in.shape(i) <= 1 || in.size() == 0 || in.stride(i) == stride;
      stride *= static_cast<int64_t>(in.shape(i));
    }
    if (!known || !whole)
      throw ShapeError("the plan's constant \"" + std::string(name) +
                       "\" has a dtype that no value has, or is not contiguous");
    made.ndim = static_cast<int>(in.ndim());
    for (size_t i = 0; i < in.ndim(); ++i) made.shape[i] = static_cast<int64_t>(in.shape(i));
    made.data = in.data();
    made.owner = std::shared_ptr<In>(new In(in), [](In* kept) {
      const nb::gil_scoped_acquire acquire;
      delete kept;
    });
    return made;
  }

  std::shared_ptr<const Plan> plan_;
};

}  // namespace

void define_plans(nb::module_& m) {
  nb::class_<GraphStore>(m, "GraphStore", "What is kept with one graph between runs.")
      .def(nb::init<>());
  nb::class_<PlanHandle>(m, "Plan", "A plan (csrc/plan/plan.h) with the tensors of its constants.")
      .def("__init__",
           [](PlanHandle* self, const nb::str& json, const nb::dict& constants) {
             new (self) PlanHandle(text_of(json.ptr()), constants);
           })
      .def_prop_ro("steps", [](const PlanHandle& self) { return self.plan()->steps(); })
      .def_prop_ro("strips", [](const PlanHandle& self) { return self.plan()->strips(); })
      .def_prop_ro("outputs", [](const PlanHandle& self) { return self.plan()->outputs(); })
      .def("run", &PlanHandle::run, nb::arg("values"), nb::arg("threads"),
           nb::arg("store").none() = nb::none(),
           "One whole run: values are (number, address, dtype, shape), results DLPack capsules.");
  nb::class_<Run>(m, "Run", "A run in ranges of steps; not to be shared by threads.")
      .def("__init__", [](Run* self, const PlanHandle& plan) { new (self) Run(plan.plan()); })
      .def(
          "set",
          [](Run& self, int value, uint64_t address, const nb::str& dtype,
             const nb::handle& shape) {
            self.set(value, array_at(address, text_of(dtype.ptr()), shape));
          },
          "Gives a value; its memory must stay until clear().")
      .def("keep_with", &Run::keep_with, nb::arg("store").none())
      .def("steps", &run_steps, nb::arg("first"), nb::arg("last"), nb::arg("threads"))
      .def("get", [](Run& self, int value) { return exported(self.get(value)); })
      .def("clear", &Run::clear);
}

}  // namespace nodebits
