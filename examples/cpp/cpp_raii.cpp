/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The life of a model in C++: train with document pools, choose experts for one text, load those alone, talk.
 *     cpp_raii DOCUMENTS_JSONL OUT_FOLDER
 * Nothing is released by hand, and nothing is checked by hand: failures throw. (With -fno-exceptions every call returns
 * an emo::result instead.)
 */
#include <emo.hpp>

#include <cstdio>
#include <iostream>

namespace {

constexpr char config[] = R"({"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_experts": 17, "num_shared_experts": 1, "num_experts_per_tok": 4,
    "max_position_embeddings": 512, "vocab_size": 257, "eos_token_id": 256, "pad_token_id": 256})";

emo::model train(const emo::runtime &rt, const char *documents) {
    emo::tokenizer bytes = emo::tokenizer::bytes(rt);
    emo::model model = emo::model::create(rt, config);
    model.set_tokenizer(bytes);
    const emo::dataset data = emo::dataset::open(rt, documents, bytes);
    const emo::pool_policy pool = emo::pool_policy::uniform(rt, 4, 16);

    emo::train_options options; /* the fields of emo_train_options, with their defaults */
    options.pool = pool.get();
    options.max_steps = 60;
    options.batch_rows = 8;
    options.seq_len = 64;
    options.each_step([](const emo_step_metrics &step) {
        if (step.step % 20 == 0)
            std::cout << "step " << step.step << ": loss " << step.loss << '\n';
    });
    emo::trainer::create(model, data, options).run();
    return model; /* it keeps alive what it needs */
}

void talk(const emo::runtime &rt, const std::string &folder, const emo::mask &experts, const char *prompt) {
    emo::model_load_options load;
    load.subset = experts.get(); /* the others are never read */
    emo::model model = emo::model::load(rt, folder, load);
    const emo::model_info info = model.info();
    std::cout << info.loaded << " of " << info.parameters << " parameters loaded\n" << prompt;

    emo::session_options options;
    options.max_tokens = 40;
    emo::session session = emo::session::create(model, options);
    session.append(prompt);
    for (std::string_view piece : session.generate()) /* give it a budget, and pieces may be empty */
        std::cout << piece << std::flush;
    std::cout << '\n';
}

void run(const char *documents, const std::string &folder) {
    emo::runtime_options options;
    options.on_log(EMO_LOG_WARNING, [](emo_log_level, std::string_view text) { std::cerr << text << '\n'; });
    const emo::runtime rt = emo::runtime::create(options);

    emo::model model = train(rt, documents);
    model.save(folder);

    emo::select_options select;
    select.keep = 5;
    select.method = EMO_SELECT_LAYERWISE;
    const emo::mask kitchen = emo::select(rt, model, "flour butter sugar knead bake bread", select);
    const emo::mask harbour = emo::select(rt, model, "river bridge water boat shore fish", select);
    std::cout << "both keep " << (kitchen & harbour).size() << " experts, together they keep "
              << (kitchen | harbour).size() << '\n';
    talk(rt, folder, kitchen, "the oven");
}

} // namespace

int main(int argc, char **argv) {
    if (argc != 3) {
        std::fprintf(stderr, "usage: %s DOCUMENTS_JSONL OUT_FOLDER\n", argv[0]);
        return 2;
    }
    try {
        run(argv[1], argv[2]);
    } catch (const emo::exception &e) {
        std::fprintf(stderr, "%s: %s\n", e.error().name(), e.what());
        return 1;
    }
    return 0;
}
