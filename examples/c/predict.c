/* Loads a packed model and runs it on a ring of nodes: predict MODEL [NODES [THREADS]]
 *
 * Prints one line per row of the result. Feature j of node i is ((7 i + 3 j) mod 11) / 11, so that
 * anybody can make the same numbers. */
#include <nodebits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int fail(const char* what) {
  fprintf(stderr, "%s: %s: %s\n", what, nb_error_kind(), nb_error());
  return 1;
}

/* Data of one input of the model, for a ring of so many nodes; NULL: no example is known of it. */
static void* ring_input(const nb_input_info* info, int64_t nodes, nb_array* array) {
  array->dtype = info->dtype;
  array->ndim = info->ndim;
  if (info->is_graph) {
    int64_t* edges = malloc((size_t)(4 * nodes + 1) * sizeof(int64_t));
    for (int64_t i = 0; edges != NULL && i < nodes; ++i) {
      const int64_t next = (i + 1) % nodes;
      edges[2 * i] = edges[2 * nodes + 2 * i + 1] = i;
      edges[2 * i + 1] = edges[2 * nodes + 2 * i] = next;
    }
    array->shape[0] = 2;
    array->shape[1] = 2 * nodes;
    return edges;
  }
  array->shape[0] = nodes;
  if (info->dtype == NB_FLOAT32 && info->ndim == 2 && info->shape[1] > 0) {
    const int64_t columns = array->shape[1] = info->shape[1];
    float* x = malloc((size_t)(nodes * columns + 1) * sizeof(float));
    for (int64_t i = 0; x != NULL && i < nodes; ++i) {
      for (int64_t j = 0; j < columns; ++j) x[i * columns + j] = (float)((7 * i + 3 * j) % 11) / 11;
    }
    return x;
  }
  /* One graph: every node is of the first. */
  if (info->dtype == NB_INT64 && info->ndim == 1) return calloc((size_t)nodes + 1, sizeof(int64_t));
  return NULL;
}

static int print_rows(const nb_array* out) {
  if (out->dtype != NB_FLOAT32 || out->ndim != 2) {
    fprintf(stderr, "the result is no float32 matrix\n");
    return 1;
  }
  const float* values = out->data;
  for (int64_t i = 0; i < out->shape[0]; ++i) {
    for (int64_t j = 0; j < out->shape[1]; ++j)
      printf(j == 0 ? "%.9g" : " %.9g", values[i * out->shape[1] + j]);
    printf("\n");
  }
  return 0;
}

int main(int argc, char** argv) {
  const int64_t nodes = argc > 2 ? atoll(argv[2]) : 20;
  nb_model* model = NULL;
  nb_run* run = NULL;
  nb_array out;
  int failed = 0;
  if (argc < 2 || nodes < 1) {
    fprintf(stderr, "usage: %s MODEL [NODES [THREADS]]\n", argv[0]);
    return 2;
  }
  if (nb_load(argv[1], 0, &model) != NB_OK) return fail("nb_load");
  const int count = nb_num_inputs(model);
  void** data = calloc((size_t)count + 1, sizeof(void*));
  if (data == NULL || nb_run_new(model, &run) != NB_OK) failed = fail("nb_run_new");
  if (!failed && argc > 3 && nb_set_threads(run, atoi(argv[3])) != NB_OK) failed = fail("threads");
  for (int i = 0; i < count && !failed; ++i) {
    nb_input_info info;
    nb_array array;
    memset(&array, 0, sizeof(array));
    if (nb_input(model, i, &info) != NB_OK) {
      failed = fail("nb_input");
    } else if ((data[i] = ring_input(&info, nodes, &array)) == NULL) {
      fprintf(stderr, "this example has nothing for the input %s\n", info.name);
      failed = 1;
    } else {
      array.data = data[i];
      if (nb_set_input(run, info.name, &array) != NB_OK) failed = fail("nb_set_input");
    }
  }
  if (!failed && nb_execute(run) != NB_OK) failed = fail("nb_execute");
  if (!failed && nb_output(run, 0, &out) != NB_OK) failed = fail("nb_output");
  if (!failed) {
    fprintf(stderr, "nodebits %s, %s\n", nb_version(), nb_isa());
    failed = print_rows(&out);
  }
  nb_run_free(run);
  nb_model_free(model);
  for (int i = 0; data != NULL && i < count; ++i) free(data[i]);
  free(data);
  return failed;
}
