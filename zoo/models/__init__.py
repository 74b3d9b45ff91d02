"""Models: functional-API builders. MODELS maps each name to where its builder lives; nothing is imported before use."""

MODELS = {
    "decoder": "zoo.models.decoder:decoder",
    "encoder": "zoo.models.encoder:encoder",
    "encoder_decoder": "zoo.models.encoder_decoder:encoder_decoder",
    "vision_encoder": "zoo.models.vision_encoder:vision_encoder",
    "vision_encoder_decoder": "zoo.models.vision_encoder_decoder:vision_encoder_decoder",
}
