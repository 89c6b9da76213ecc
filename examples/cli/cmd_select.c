/* SPDX-License-Identifier: Apache-2.0 */
/* emo select: the experts for a few documents. */
#include "cli.h"
#include "dataset.h"
#include "eval_tasks.h"

#include <inttypes.h>
#include <string.h>

static const command_text text = {
    "emo select",
    "--model DIR --calibration PATH... --keep K [--method usage|layerwise|easy-ep|random] [--domain NAME] "
    "[--examples N] --out FILE",
    "Chooses the experts that documents like the given ones need, and writes them as a mask. One document can do.",
    "usage: the largest mean router probability. layerwise: the same, each layer after the earlier ones are restricted."
    "\neasy-ep: gate times output times how much the block turns the token. random: the control; it needs no "
    "documents.",
    0};

static void print_result(cli *c, const emo_mask *mask, const emo_dataset *documents, const char *method,
                         const char *out) {
    progress_clear(&c->line);
    if (c->common.json) {
        json_writer json = {stdout, 0, {0}};
        json_open(&json, NULL);
        json_string(&json, "mask", out);
        json_string(&json, "method", method);
        json_integer(&json, "documents", emo_dataset_count(documents));
        json_integer(&json, "tokens", emo_dataset_tokens(documents));
        json_mask_layers(&json, mask);
        json_close(&json);
    } else if (!c->common.quiet) {
        char words[128];
        describe_mask(mask, words, sizeof(words));
        printf("%s: %s, by %s", out, words, method);
        if (documents != NULL)
            printf(" from %" PRId64 " document%s (%" PRId64 " tokens)", emo_dataset_count(documents),
                   emo_dataset_count(documents) == 1 ? "" : "s", emo_dataset_tokens(documents));
        putchar('\n');
    }
}

int cmd_select(int argc, char **argv) {
    const char *folder = NULL, *domain = NULL, *method = "layerwise", *out = NULL;
    string_list calibration = {NULL, 0};
    int64_t examples = 0;
    int32_t skip_broken = 0;
    uint64_t seed = 0;
    emo_select_options options = EMO_SELECT_OPTIONS_INIT;
    option table[] = {
        {"model", OPTION_STRING, &folder, "DIR", "the model folder", NULL, 0, 0, 1, 0},
        {"calibration", OPTION_LIST, &calibration, "PATH", "documents of the kind the subset is for", NULL, 0, 0, 0, 0},
        {"keep", OPTION_INT32, &options.keep, "K", "experts kept per layer, the shared ones included", NULL, 1, 65536,
         1, 0},
        {"out", OPTION_STRING, &out, "FILE", "the mask to write", NULL, 0, 0, 1, 0},
        {"method", OPTION_CHOICE, &method, "usage|layerwise|easy-ep|random", "how experts are ranked", "layerwise", 0,
         0, 0, 0},
        {"domain", OPTION_STRING, &domain, "NAME", "only documents of this domain", "all", 0, 0, 0, 0},
        {"examples", OPTION_INT64, &examples, "N", "draw so many documents by --seed; 0: take all", "0", 0, 9e15, 0, 0},
        {"seed", OPTION_SEED, &seed, "N", "of the draw and of the random method", "0", 0, 0, 0, 0},
        {"context", OPTION_INT32, &options.seq_len, "N", "tokens a document is cut into; 0: not cut", "0", 0, 1 << 24,
         0, 0},
        {"skip-broken", OPTION_FLAG, &skip_broken, NULL, "leave malformed documents out", NULL, 0, 0, 0, 0},
        OPTION_END};
    cli c;
    if (!cli_begin(&c, &text, table, argc, argv))
        return c.code;
    emo_model *model = NULL;
    emo_dataset *all = NULL, *documents = NULL;
    emo_mask *mask = NULL;
    const emo_tokenizer *tokenizer = NULL;
    options.method = select_method_of(method);
    options.seed = seed;
    options.progress = cli_progress(&c);
    if (options.method != EMO_SELECT_RANDOM && calibration.count == 0) {
        cli_usage(&c, "--calibration PATH is required: documents of the kind the subset is for (the method random "
                      "needs none).");
        goto done;
    }
    EMO_TRY(cli_load_model(&c, folder, NULL, &model));
    if (options.method != EMO_SELECT_RANDOM) {
        EMO_TRY(model_tokenizer(&c, model, folder, &tokenizer));
        dataset_request request = {&calibration, tokenizer, NULL, domain, skip_broken, NULL, NULL};
        EMO_TRY(dataset_open(&c, &request, &all));
        EMO_TRY(emo_dataset_filter(all, NULL, examples, seed, &documents, &c.err));
    }
    EMO_TRY(emo_select(model, documents, &options, &mask, &c.err));
    EMO_TRY(emo_mask_save(mask, out, &c.err));
    print_result(&c, mask, documents, method, out);
done:
    emo_mask_release(mask);
    emo_dataset_release(documents);
    emo_dataset_release(all);
    emo_model_release(model);
    return cli_end(&c);
}
